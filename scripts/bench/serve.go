package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A contestant is one server that gives out the same content, at /v2/bench/.
type contestant struct {
	name    string
	missing string // why it is not measured
	address string
	cmd     *exec.Cmd
	stop    func()

	manifest []float64         // requests per second
	blob     map[string][]load // by client
}

const nginxConfig = `daemon off;
pid %[1]s/nginx.pid;
error_log stderr error;
worker_processes auto;
events { worker_connections 1024; }
http {
	access_log off;
	sendfile on;
	tcp_nopush on;
	keepalive_requests 100000000;
	client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
	default_type application/octet-stream;
	server { listen %[2]s; root %[1]s/root; }
}
`

// benchServe: a small manifest, and a large blob, from a served directory and
// archive, the reference registry, and nginx with the same files.
func (b *bench) benchServe(ctx context.Context, s sizes) error {
	if why := missing("wrk"); why != "" {
		b.printf("\nserve: not measured: %s\n", why)
		return nil
	}
	dir := filepath.Join(b.dir, "serve")
	big, small, lay, file := filepath.Join(dir, "big"), filepath.Join(dir, "small"), filepath.Join(dir, "layout"), filepath.Join(dir, "layout.oci")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the directory of the run is removed, too
	if err := errors.Join(writeNoise(big, 1, s.file), writeNoise(small, 2, 1<<10)); err != nil {
		return err
	}
	if _, err := b.measure(ctx, [][]string{
		{b.program, "init", lay},
		{b.program, "add", "artifact", lay, "--ref", "v1", "--artifact-type", "application/x.bench", big, small},
		{b.program, "pack", lay, file},
	}); err != nil {
		return err
	}
	blob, err := b.largest(lay)
	if err != nil {
		return err
	}
	sites := []*contestant{
		b.ownSite(ctx, "serve a directory", lay), b.ownSite(ctx, "serve an .oci file", file),
		b.registrySite(ctx, lay), b.nginxSite(ctx, lay, blob),
	}
	defer func() {
		for _, x := range sites {
			if x.stop != nil {
				x.stop()
			}
		}
	}()
	seconds := 4
	if b.quick {
		seconds = 1
	}
	for _, x := range sites {
		x.blob = map[string][]load{}
		if x.missing == "" {
			// This fills the page cache as well, and has the blob verified.
			if err := whole(ctx, "http://"+x.address+"/v2/bench/blobs/sha256:"+blob, blob); err != nil {
				return fmt.Errorf("%s: %w", x.name, err)
			}
			if _, _, err := b.wrk(ctx, 1, 32, "http://"+x.address+"/v2/bench/manifests/v1"); err != nil {
				return fmt.Errorf("%s: %w", x.name, err)
			}
		}
	}
	for range b.rounds {
		for _, x := range sites {
			if x.missing != "" {
				continue
			}
			base := "http://" + x.address + "/v2/bench/"
			rate, _, err := b.wrk(ctx, seconds, 32, base+"manifests/v1")
			if err != nil {
				return fmt.Errorf("%s: %w", x.name, err)
			}
			x.manifest = append(x.manifest, rate)
			for _, client := range blobClients {
				got, err := b.takeBlob(ctx, x, client, (seconds+1)/2, base+"blobs/sha256:"+blob)
				if err != nil {
					return fmt.Errorf("%s: %w", x.name, err)
				}
				x.blob[client.name] = append(x.blob[client.name], got)
			}
		}
	}
	b.showSites(sites, s)
	return nil
}

// A blobClient takes the large blob, on so many connections.
type blobClient struct {
	name, how   string // how is "" for wrk
	connections int
	goal        bool
}

// What wrk gets says more of wrk than of a server: it is here to be compared with
// other figures. The others take all bytes off the socket as cheaply as can be, or
// do what those who pull do.
var blobClients = []blobClient{
	{"discard, 1 connection", takeDiscard, 1, true},
	{"discard, 2 connections", takeDiscard, 2, true},
	{"hash, 2 connections", takeHash, 2, false},
	{"wrk, 2 connections", "", 2, true},
}

func (b *bench) takeBlob(ctx context.Context, x *contestant, client blobClient, seconds int, url string) (load, error) {
	if client.how != "" {
		return b.take(ctx, x, client.how, seconds, client.connections, url)
	}
	server, before, begin := cpuTime(x.cmd), childTime(), now()
	_, bytes, err := b.wrk(ctx, seconds, client.connections, url)
	if err != nil {
		return load{}, err
	}
	gib := bytes * now().Sub(begin).Seconds() / (1 << 30)
	return load{bytes, (childTime() - before).Seconds() / gib, (cpuTime(x.cmd) - server).Seconds() / gib}, nil
}

// childTime is what processes have used that have ended and were waited for.
func childTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (b *bench) showSites(sites []*contestant, s sizes) {
	b.printf("\nserve: a manifest to 32 connections of wrk\n")
	b.printf("  %-24s  %12s  %24s  %9s\n", "", "requests/s", "min - max", "max RSS")
	for _, x := range sites {
		if x.missing != "" {
			b.printf("  %-24s  not measured: %s\n", x.name, x.missing)
			continue
		}
		b.printf("  %-24s  %12.0f  %24s  %9s\n", x.name, middle(x.manifest),
			fmt.Sprintf("%.0f - %.0f", slices.Min(x.manifest), slices.Max(x.manifest)), bytesText(peakMemory(x.cmd)))
	}
	for _, client := range blobClients {
		b.printf("\nserve: a blob of %s to %s\n", bytesText(s.file), client.name)
		b.printf("  %-24s  %12s  %24s  %14s  %14s\n", "", "bytes/s", "min - max", "CPU/GiB server", "client")
		for _, x := range sites {
			loads := x.blob[client.name]
			if len(loads) == 0 {
				continue
			}
			v := rates(loads)
			b.printf("  %-24s  %12s  %24s  %12.2f s  %12.2f s\n", x.name, bytesText(int64(middle(v))),
				bytesText(int64(slices.Min(v)))+" - "+bytesText(int64(slices.Max(v))),
				middle(each(loads, func(l load) float64 { return l.server })), middle(each(loads, func(l load) float64 { return l.client })))
		}
	}
	for _, own := range sites[:2] {
		for _, other := range sites[2:] {
			least := 1.5
			if strings.HasPrefix(other.name, "nginx") {
				least = 0.8
			}
			b.goalSite(own, other, "requests", least, own.manifest, other.manifest)
			for _, client := range blobClients {
				if client.goal {
					b.goalSite(own, other, "throughput to "+client.name+",", least, rates(own.blob[client.name]), rates(other.blob[client.name]))
				}
			}
		}
		b.goal(own.name+": memory at most 64 MiB", float64(peakMemory(own.cmd)), 64<<20, bytesText(peakMemory(own.cmd)))
	}
}

func (b *bench) goalSite(own, other *contestant, what string, least float64, ours, theirs []float64) {
	r := 0.0
	if len(theirs) > 0 && middle(ours) > 0 {
		r = middle(theirs) / middle(ours)
	}
	b.goal(fmt.Sprintf("%s: %s at least %.1f of %s", own.name, what, least, other.name), r, 1/least, fmt.Sprintf("%.2f", 1/max(r, 1e-9)))
}

func rates(loads []load) []float64 { return each(loads, func(l load) float64 { return l.bytes }) }

func each(loads []load, of func(load) float64) []float64 {
	v := make([]float64, len(loads))
	for i, l := range loads {
		v[i] = of(l)
	}
	return v
}

func middle(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

var wrkRate = regexp.MustCompile(`Requests/sec: *([0-9.]+)`)

// wrk loads url for some seconds and returns requests and bytes per second. The
// bytes are those that the kernel received: those of responses that did not end
// in time count as well.
func (b *bench) wrk(ctx context.Context, seconds, connections int, url string) (requests, bytes float64, err error) {
	out, err := b.output(ctx, "wrk", "-t1", "-c"+strconv.Itoa(connections), "-d"+strconv.Itoa(seconds)+"s", "--timeout", "60s",
		"-H", "Accept: application/vnd.oci.image.manifest.v1+json", url) // without it the registry has no such manifest
	if err != nil {
		return 0, 0, err
	}
	m := wrkRate.FindSubmatch(out)
	t := wrkBytes.FindSubmatch(out)
	if m == nil || t == nil || strings.Contains(string(out), "Non-2xx") || strings.Contains(string(out), "Socket errors") {
		return 0, 0, fmt.Errorf("wrk %s: %s", url, oneLine(string(out)))
	}
	if requests, err = strconv.ParseFloat(string(m[1]), 64); err != nil {
		return 0, 0, err
	}
	if bytes, err = strconv.ParseFloat(string(t[1]), 64); err != nil {
		return 0, 0, err
	}
	return requests, bytes * map[string]float64{"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[string(t[2])], nil
}

var wrkBytes = regexp.MustCompile(`Transfer/sec: *([0-9.]+)([KMG]?)B`)

// start runs a server that lasts as long as ctx at most.
func (x *contestant) start(ctx context.Context, env []string, args ...string) error {
	x.cmd = exec.CommandContext(ctx, args[0], args[1:]...)
	x.cmd.Env = env
	if err := x.cmd.Start(); err != nil {
		return err
	}
	x.stop = func() {
		_ = x.cmd.Process.Signal(syscall.SIGTERM)
		_ = x.cmd.Wait()
	}
	for deadline := now().Add(30 * time.Second); !ready(ctx, x.address); time.Sleep(20 * time.Millisecond) {
		if now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%s does not answer", x.name)
		}
	}
	return nil
}

func (b *bench) ownSite(ctx context.Context, name, source string) *contestant {
	x := &contestant{name: name}
	var err error
	if x.address, err = freeAddress(ctx); err == nil {
		err = x.start(ctx, b.env, b.program, "serve", "--quiet", "--addr", x.address, source+"=bench")
	}
	if err != nil {
		x.missing = oneLine(err.Error())
	}
	return x
}

func (b *bench) registrySite(ctx context.Context, lay string) *contestant {
	x := &contestant{name: "the reference registry"}
	r, err := b.startRegistry(ctx, "")
	if err == nil && r.missing != "" {
		err = errors.New(r.missing)
	}
	if err == nil {
		x.address, x.cmd, x.stop = r.address, r.cmd, r.stop
		_, err = b.measure(ctx, [][]string{{b.program, "sync", "--quiet", "--tls-verify=false", lay, "docker://" + r.address + "/bench"}})
	}
	if err != nil {
		x.missing = oneLine(err.Error())
	}
	return x
}

// nginxSite gives out the files of the layout, without a copy of the blob.
func (b *bench) nginxSite(ctx context.Context, lay, blob string) *contestant {
	x := &contestant{name: "nginx", missing: missing("nginx")}
	if x.missing != "" {
		return x
	}
	err := func() error {
		dir, err := os.MkdirTemp(b.dir, "nginx-")
		if err != nil {
			return err
		}
		// nginx started by root gives out files as another user.
		root := filepath.Join(dir, "root")
		for _, d := range []string{b.dir, dir} {
			if err := os.Chmod(d, 0o755); err != nil {
				return err
			}
		}
		for _, d := range []string{"v2/bench/manifests", "v2/bench/blobs"} {
			if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
				return err
			}
		}
		manifest, err := b.output(ctx, b.program, "inspect", "--raw", lay+":v1")
		if err != nil {
			return err
		}
		if err := errors.Join(
			os.WriteFile(filepath.Join(root, "v2/bench/manifests/v1"), manifest, 0o644),
			os.WriteFile(filepath.Join(root, "v2/index.html"), nil, 0o644),
			os.Link(filepath.Join(lay, "blobs/sha256", blob), filepath.Join(root, "v2/bench/blobs/sha256:"+blob)),
		); err != nil {
			return err
		}
		if x.address, err = freeAddress(ctx); err != nil {
			return err
		}
		config := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir, x.address), 0o644); err != nil {
			return err
		}
		return x.start(ctx, b.env, "nginx", "-e", "stderr", "-p", dir, "-c", config)
	}()
	if err != nil {
		x.missing = oneLine(err.Error())
	}
	return x
}

// largest returns the name of the largest blob.
func (b *bench) largest(lay string) (string, error) {
	entries, err := os.ReadDir(filepath.Join(lay, "blobs/sha256"))
	name, most := "", int64(-1)
	for _, e := range entries {
		info, infoErr := e.Info()
		if err = errors.Join(err, infoErr); err == nil && info.Size() > most {
			name, most = e.Name(), info.Size()
		}
	}
	return name, err
}

// cpuTime is what a process and its children have used so far (proc(5), stat), in
// units of 10 ms; 0 where /proc does not tell.
func cpuTime(cmd *exec.Cmd) time.Duration {
	pid := strconv.Itoa(cmd.Process.Pid)
	children, _ := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children") // as nginx has
	var sum int64
	for _, p := range append(strings.Fields(string(children)), pid) {
		stat, _ := os.ReadFile("/proc/" + p + "/stat")
		_, after, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(after) // from the third on
		for i := 11; i < min(13, len(fields)); i++ {
			n, _ := strconv.ParseInt(fields[i], 10, 64)
			sum += n
		}
	}
	return time.Duration(sum) * (10 * time.Millisecond)
}

// peakMemory is what a process that runs has needed at most, in bytes; of nginx
// that is its first process, which serves nothing.
func peakMemory(cmd *exec.Cmd) int64 {
	if cmd == nil || cmd.Process == nil {
		return 0
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		return 0
	}
	defer f.Close() //nolint:errcheck // only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kib int64
		if n, _ := fmt.Sscanf(lines.Text(), "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}
