// Package serve offers layouts as a read-only registry: the pull part of the
// OCI distribution specification (v1.1.1) over directories and archives as they
// lie, nothing unpacked and nothing copied.
//
// # What is served
//
// Each [Source] becomes a repository, and one more for each repository that its
// full ref names (host/repository:tag) have. Repositories of one name are one,
// whatever source they come from. What index.json names is there, to any depth,
// and nothing else that may lie in the source.
//
// # Replacing a source
//
// The files of a source are looked at again and again. If they have changed the
// source is opened anew, and takes the place of the old one once all that its
// index.json names is there: a tag never names half a tree. Who is in the middle
// of a pull goes on: what was there before is served for some minutes more, as
// far as the source still has it (an archive that was renamed over has it all).
//
// # Wrong bytes
//
// A blob is hashed once for each state of its file, by device, inode, size and
// times: before its first byte leaves, or, if it is large, on its way, and then
// its last bytes wait for the verdict. A blob that does not match its digest is
// an error (5xx) or a broken connection, and a line in the log; it is never a
// whole response.
//
// What is in no file, such as a blob that a delta has as a patch, is made once,
// into a temporary file, under the same rules; see Options.MadeLimit.
package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/serve/internal/content"
)

// A Source is something to serve.
type Source struct {
	// Name is the repository that holds all of it; see [ValidateName].
	Name string
	// Host is the registry that the repository is a mirror of, for
	// [Server.MirrorConfig]; "" if nobody knows.
	Host string
	// Open opens it; it is called again after each change. What it returns is
	// closed when nobody reads it any more.
	Open func(ctx context.Context) (layout.Source, error)
	// Files are those that change when the source does: index.json of a
	// directory, or the archive itself.
	Files []string
	// RefName and Digest choose a part of it, as [layout.Resolve] does.
	RefName string
	Digest  digest.Digest
}

// Options says what is served, and how. The zero value of a limit is its
// default.
type Options struct {
	Sources []Source
	// Sparse allows sources that lack some of what their index.json names; it is
	// answered with 404. Else such a source is an error.
	Sparse bool
	// Page answers GET and HEAD of every path that is not the registry's (/v2/),
	// /healthz or /metrics; nil answers 404. The context of its requests is
	// for [Repositories]. Authentication, limits and the log are those of the
	// server.
	Page http.Handler

	// Users checks who asks; nil lets everybody in. /healthz is open to all.
	Users *Users
	// Log gets warnings, what is loaded, and damage; nil is silent.
	Log *slog.Logger
	// Access gets one record for each request; nil is silent.
	Access *slog.Logger

	// Poll is how often the files of the sources are looked at; 0 means 1 s, a
	// negative number never.
	Poll time.Duration
	// Keep is how long what a source no longer has is served; 0 means 10 min, a
	// negative number not at all.
	Keep time.Duration
	// VerifyLimit is the largest blob that is hashed before its first byte
	// leaves, in bytes; 0 means 64 MiB. Larger ones are hashed on their way.
	VerifyLimit int64

	// MadeLimit bounds the temporary files that keep what only a source can read,
	// such as what patches make, in bytes; 0 means 4 GiB, a negative number none:
	// then it is made for each request. They have no names, and are in [os.TempDir].
	MadeLimit int64

	// TLS is for HTTPS; nil serves HTTP.
	TLS *tls.Config
	// MaxConnections are served at once; 0 means 1,024. Others wait.
	MaxConnections int
	// HeaderTimeout bounds the time for the header of a request (0: 5 s),
	// ReadTimeout that for all of a request (0: 10 s), IdleTimeout that between
	// two requests (0: 2 min).
	HeaderTimeout, ReadTimeout, IdleTimeout time.Duration
	// WriteTimeout is how long a client may take for 1 MiB of a response, or
	// for all of a smaller one; 0 means 1 min.
	WriteTimeout time.Duration
	// ShutdownTimeout is how long requests may go on after Serve was told to
	// end; 0 means 10 s.
	ShutdownTimeout time.Duration
}

func (o *Options) setDefaults() {
	for _, d := range []struct {
		value *time.Duration
		unset time.Duration
	}{
		{&o.Poll, time.Second},
		{&o.Keep, 10 * time.Minute},
		{&o.HeaderTimeout, 5 * time.Second},
		{&o.ReadTimeout, 10 * time.Second},
		{&o.IdleTimeout, 2 * time.Minute},
		{&o.WriteTimeout, time.Minute},
		{&o.ShutdownTimeout, 10 * time.Second},
	} {
		if *d.value == 0 {
			*d.value = d.unset
		}
	}
	if o.VerifyLimit == 0 {
		o.VerifyLimit = 64 << 20 // 64 MiB
	}
	if o.MadeLimit == 0 {
		o.MadeLimit = 4 << 30 // 4 GiB
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = 1024
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// maxHeader bounds the header of a request, in bytes.
const maxHeader = 32 << 10 // 32 KiB

// A Server serves sources. It is an [http.Handler]; [Server.Serve] adds the
// limits on connections and looks for changes.
type Server struct {
	opts    Options
	content *content.Store
	metrics metrics
	near    nearBuffers
	isNear  func(*http.Request) bool // tests have another one
}

// New opens the sources and reads all their documents. One that lacks something
// it names is [layout.ErrNotFound] (unless Options.Sparse), one that has a blob
// of another size than its descriptor says [layout.ErrMismatch]; two sources
// that have one tag for different things are [layout.ErrConflict].
func New(ctx context.Context, opts Options) (*Server, error) {
	opts.setDefaults()
	s := &Server{opts: opts, near: newNearBuffers(), isNear: isNear}
	c := content.Options{Sparse: opts.Sparse, Log: opts.Log, Poll: opts.Poll, Keep: opts.Keep, MadeLimit: opts.MadeLimit}
	for _, src := range opts.Sources {
		if err := ValidateName(src.Name); err != nil {
			return nil, err
		}
		c.Sources = append(c.Sources, content.Source(src))
	}
	var err error
	s.content, err = content.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Close ends what goes on in the background and closes the sources. No request
// may be under way.
func (s *Server) Close() error { return s.content.Close() }

// Serve answers requests until ctx ends, then lets those that are under way come
// to their end, for Options.ShutdownTimeout, and returns nil. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: s, TLSConfig: s.opts.TLS, MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: s.opts.HeaderTimeout, ReadTimeout: s.opts.ReadTimeout,
		WriteTimeout: s.opts.WriteTimeout, IdleTimeout: s.opts.IdleTimeout,
		ConnState: s.metrics.connState,
		// Broken handshakes and the like: whoever can reach the port can make them.
		ErrorLog: slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() {
		l := newListener(l, s.opts.MaxConnections)
		if s.opts.TLS != nil {
			served <- server.ServeTLS(l, "", "")
			return
		}
		served <- server.Serve(l)
	}()
	polling, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.poll(polling)
	}()
	defer func() { stop(); <-done }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.ShutdownTimeout)
	defer cancel()
	err := server.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		s.opts.Log.Warn("requests were still under way: their connections are cut", "after", s.opts.ShutdownTimeout)
		err = server.Close()
	}
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}

// A Summary says what one repository has.
type Summary struct {
	Name    string
	Sources []string // as they name themselves
	Tags    int
}

// Summaries returns what is served now, sorted by name.
func (s *Server) Summaries() []Summary {
	held := s.content.Acquire()
	if held == nil {
		return nil
	}
	defer s.content.Release(held)
	var all []Summary
	for _, name := range held.Names {
		r := held.Repos[name]
		all = append(all, Summary{Name: name, Sources: held.SourcesOf(r), Tags: len(r.Tags)})
	}
	return all
}

// now is the clock of logs, durations and deadlines.
func now() time.Time {
	return time.Now() //nolint:forbidigo // no byte of a layout depends on it
}
