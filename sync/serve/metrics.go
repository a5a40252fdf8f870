package serve

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// buckets are the upper bounds of the histogram of durations.
var buckets = []time.Duration{
	time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond,
	500 * time.Millisecond, 2500 * time.Millisecond, 10 * time.Second, time.Minute, 10 * time.Minute,
}

// metrics are what /metrics shows.
type metrics struct {
	inFlight, connections atomic.Int64

	mu     sync.Mutex
	routes map[routeKey]*routeMetrics
}

type routeKey struct {
	route, method string
	status        int
}

type routeMetrics struct {
	requests, bytes int64
	seconds         float64
	buckets         []int64 // not cumulative; the last is for what is slower than all
}

// methods are those that are counted apart: others could be any word.
var methods = map[string]bool{"GET": true, "HEAD": true, "POST": true, "PUT": true, "PATCH": true, "DELETE": true, "OPTIONS": true}

func (m *metrics) count(route, method string, status int, sent int64, took time.Duration) {
	if !methods[method] {
		method = "OTHER"
	}
	key := routeKey{route, method, status}
	bucket, _ := slices.BinarySearch(buckets, took)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.routes == nil {
		m.routes = map[routeKey]*routeMetrics{}
	}
	r := m.routes[key]
	if r == nil {
		r = &routeMetrics{buckets: make([]int64, len(buckets)+1)}
		m.routes[key] = r
	}
	r.requests++
	r.bytes += sent
	r.seconds += took.Seconds()
	r.buckets[bucket]++
}

func (m *metrics) connState(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		m.connections.Add(1)
	case http.StateClosed, http.StateHijacked:
		m.connections.Add(-1)
	}
}

// showMetrics answers in the text format of Prometheus.
func (c *call) showMetrics() {
	var b bytes.Buffer
	m, n := &c.s.metrics, &c.s.content.Counters
	m.writeRoutes(&b)
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	for _, v := range []struct {
		name, kind, help string
		value            int64
	}{
		{"gloci_serve_requests_in_flight", "gauge", "Requests that are being answered.", m.inFlight.Load()},
		{"gloci_serve_connections", "gauge", "Open connections.", m.connections.Load()},
		{"gloci_serve_verified_blobs_total", "counter", "Blobs that were hashed and found right.", n.Verified.Load()},
		{"gloci_serve_verified_bytes_total", "counter", "Bytes of those blobs.", n.VerifiedBytes.Load()},
		{"gloci_serve_damaged_blobs_total", "counter", "Blobs that were hashed and found damaged.", n.Damaged.Load()},
		{"gloci_serve_made_blobs_total", "counter", "Blobs that were made, as of patches, and kept in a temporary file.", n.Made.Load()},
		{"gloci_serve_made_failures_total", "counter", "Blobs that found no room for a temporary file.", n.MadeFailed.Load()},
		{"gloci_serve_made_evictions_total", "counter", "Temporary files that made way for others.", n.MadeEvicted.Load()},
		{"gloci_serve_made_files", "gauge", "Temporary files that keep such blobs.", n.MadeFiles.Load()},
		{"gloci_serve_made_bytes", "gauge", "Bytes of those files.", n.MadeBytes.Load()},
		{"gloci_serve_loads_total", "counter", "Times that what is served was made or replaced.", n.Loads.Load()},
		{"gloci_serve_load_failures_total", "counter", "Changes of sources that could not be served.", n.LoadFailures.Load()},
		{"gloci_serve_loaded_timestamp_seconds", "gauge", "When what is served was loaded.", n.LoadedAt.Load()},
		{"gloci_serve_repositories", "gauge", "Repositories that are served.", n.Repositories.Load()},
		{"gloci_serve_tags", "gauge", "Tags that are served.", n.Tags.Load()},
		{"gloci_serve_blobs", "gauge", "Blobs that are served, manifests included.", n.Blobs.Load()},
		{"go_goroutines", "gauge", "Goroutines.", int64(runtime.NumGoroutine())},
		{"go_memstats_heap_inuse_bytes", "gauge", "Bytes of the heap that are in use.", int64(mem.HeapInuse)},
		{"go_memstats_sys_bytes", "gauge", "Bytes that the program has from the system.", int64(mem.Sys)},
	} {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n%s %d\n", v.name, v.help, v.name, v.kind, v.name, v.value)
	}
	c.w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	c.send(http.StatusOK, b.Bytes())
}

func (m *metrics) writeRoutes(b *bytes.Buffer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := slices.SortedFunc(maps.Keys(m.routes), func(x, y routeKey) int {
		return cmp.Or(cmp.Compare(x.route, y.route), cmp.Compare(x.method, y.method), cmp.Compare(x.status, y.status))
	})
	each := func(name, kind, help string, write func(labels string, r *routeMetrics)) {
		fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
		for _, k := range keys {
			write(fmt.Sprintf("route=%q,method=%q,code=\"%d\"", k.route, k.method, k.status), m.routes[k])
		}
	}
	each("gloci_serve_requests_total", "counter", "Requests that were answered.", func(labels string, r *routeMetrics) {
		fmt.Fprintf(b, "gloci_serve_requests_total{%s} %d\n", labels, r.requests)
	})
	each("gloci_serve_response_bytes_total", "counter", "Bytes of bodies that were sent.", func(labels string, r *routeMetrics) {
		fmt.Fprintf(b, "gloci_serve_response_bytes_total{%s} %d\n", labels, r.bytes)
	})
	const duration = "gloci_serve_request_duration_seconds"
	each(duration, "histogram", "Time until the last byte was sent.", func(labels string, r *routeMetrics) {
		sum := int64(0)
		for i, bound := range buckets {
			sum += r.buckets[i]
			fmt.Fprintf(b, "%s_bucket{%s,le=\"%s\"} %d\n", duration, labels, strconv.FormatFloat(bound.Seconds(), 'g', -1, 64), sum)
		}
		fmt.Fprintf(b, "%s_bucket{%s,le=\"+Inf\"} %d\n", duration, labels, r.requests)
		fmt.Fprintf(b, "%s_sum{%s} %s\n", duration, labels, strconv.FormatFloat(r.seconds, 'g', -1, 64))
		fmt.Fprintf(b, "%s_count{%s} %d\n", duration, labels, r.requests)
	})
}
