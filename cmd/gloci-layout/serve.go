package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive/parts"
	"github.com/gardenlinux/gloci-layout/sync/serve"
)

func newServeCommand(e *env) *cli.Command {
	var opts serveOptions
	return &cli.Command{
		Name: "serve", Usage: "offer layouts as a read-only registry", ArgsUsage: "SOURCE[=NAME]...",
		Description: "Every client that pulls from registries can pull from it: nothing is unpacked or copied. Each SOURCE is the repository NAME, " +
			"or one named after its file; NAME may begin with the host of the registry that it is a mirror of. " +
			"Ref names are tags; full ref names, HOST/REPO:TAG, are also tags of the repository REPO. " +
			"An entry without ref name is latest, if it is the only one. :REFNAME and @DIGEST serve a part of a SOURCE.\n\n" +
			"A SOURCE that changes, or is replaced, is loaded anew within a second, or at once on SIGHUP, when all that its index.json names is there; " +
			"until then what was there before is served. " +
			"A blob is hashed before its bytes leave, once for each state of its file; a damaged one is an error, never wrong bytes.\n\n" +
			"In a browser, the same address shows what is in it, with downloads and comparisons.\n\n" +
			"It listens on the loopback interface unless --addr says otherwise, prints the address, and serves until it is interrupted (SIGINT, SIGTERM): " +
			"then requests that are under way have 10 seconds, and the exit status is 0. The log of requests goes to stderr, unless --quiet. " +
			"/healthz and /metrics (Prometheus) are at the same address; docs/serve.md says more.\n\n" + serveSourceHelp,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "addr", Usage: "listen on `HOST:PORT`; port 0 takes a free one, which is printed", Value: "127.0.0.1:5000", Destination: &opts.addr},
			&cli.StringFlag{Name: "name", Usage: "call the repository `REPO`, if there is one SOURCE", Destination: &opts.name},
			&cli.StringFlag{Name: "tls-cert", Usage: "serve HTTPS with the certificate in `FILE` (PEM)", Destination: &opts.cert},
			&cli.StringFlag{Name: "tls-key", Usage: "the private key of --tls-cert is in `FILE` (PEM)", Destination: &opts.key},
			&cli.StringFlag{Name: "htpasswd", Usage: "let in only the users in `FILE`, as htpasswd -B writes it", Destination: &opts.users},
			&cli.BoolFlag{Name: "sparse", Usage: "serve sources that lack some of what they name", Destination: &opts.serve.Sparse},
			&cli.DurationFlag{Name: "poll", Usage: "look for changes of the sources every `TIME`; 0 means never", Value: time.Second, Destination: &opts.poll},
			&cli.DurationFlag{Name: "keep", Usage: "for `TIME`, serve by digest what a changed source no longer names", Value: 10 * time.Minute, Destination: &opts.keep},
			&cli.DurationFlag{Name: "read-timeout", Usage: "a client has `TIME` to send a request, and 5 seconds for its header", Value: 10 * time.Second, Destination: &opts.serve.ReadTimeout},
			&cli.DurationFlag{Name: "write-timeout", Usage: "a client has `TIME` to take 1 MiB of a response, or the rest of it", Value: time.Minute, Destination: &opts.serve.WriteTimeout},
			&cli.DurationFlag{Name: "idle-timeout", Usage: "close connections that nobody uses after `TIME`", Value: 2 * time.Minute, Destination: &opts.serve.IdleTimeout},
			&cli.StringFlag{Name: "temp-limit", Usage: "keep what patches make in temporary files in TMPDIR, of at most `SIZE` together; 0 means none", Value: "4G", Destination: &opts.tempLimit},
			&cli.IntFlag{Name: "max-connections", Usage: "serve `N` connections at once; others wait", Value: 1024, Destination: &opts.serve.MaxConnections},
			&cli.StringFlag{Name: "log-format", Usage: "write the log of requests as `FORMAT` says: text or json", Value: "text", Destination: &opts.logFormat},
			&cli.StringFlag{Name: "print-mirror-config", Usage: "serve nothing; print what makes `CLIENT` ask this address: " + strings.Join(serve.MirrorKinds, ", "), Destination: &opts.mirror},
			opts.from.follows(),
			baseFlag("what a delta lacks is in `SOURCE`"),
		},
		Action: func(c *cli.Context) error { return runServe(c, e, &opts) },
	}
}

const serveSourceHelp = `SOURCE is a layout directory, an .oci file, or one of

  oci:DIR[:REFNAME][@DIGEST]            a layout directory
  oci-archive:FILE[:REFNAME][@DIGEST]   an .oci file, plain, gzip or zstd
  docker-archive:FILE[:NAME:TAG]        the output of docker save
  dir:DIR                               a directory as skopeo writes it`

type serveOptions struct {
	from                         sourceFlags
	serve                        serve.Options
	addr, name, cert, key, users string
	logFormat, mirror, tempLimit string
	poll, keep                   time.Duration
}

type serveResult struct {
	Type    string `json:"type" doc:"listening"`
	Address string `json:"address" doc:"HOST:PORT"`
	URL     string `json:"url" doc:"of the server"`
}

type serveRepositoryResult struct {
	Type    string   `json:"type" doc:"repository"`
	Name    string   `json:"name" doc:"HOST:PORT/REPO"`
	Sources []string `json:"sources" doc:"what is served there"`
	Tags    int      `json:"tags" doc:"how many tags there are"`
}

func runServe(c *cli.Context, e *env, opts *serveOptions) (err error) {
	if err := opts.check(c); err != nil {
		return err
	}
	o := &opts.serve
	for _, operand := range c.Args().Slice() {
		src, err := opts.source(c, e, operand)
		if err != nil {
			return err
		}
		o.Sources = append(o.Sources, src)
	}
	if o.MadeLimit, err = parseSize(opts.tempLimit); err != nil {
		return usagef(c, "--temp-limit %q: want a number of bytes, such as 4G", opts.tempLimit)
	}
	if o.MadeLimit == 0 {
		o.MadeLimit = -1
	}
	o.Log, o.Poll, o.Keep = e.log, opts.poll, opts.keep
	o.Page = servedPage(e)
	if opts.poll == 0 {
		o.Poll = -1
	}
	if opts.keep == 0 {
		o.Keep = -1
	}
	if opts.users != "" {
		if o.Users, err = serve.ReadUsers(opts.users); err != nil {
			return err
		}
	}
	pair := &certificate{cert: opts.cert, key: opts.key}
	if opts.cert != "" {
		if err := pair.reload(); err != nil {
			return err
		}
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: pair.get, NextProtos: []string{"h2", "http/1.1"}}
	}
	if !e.quiet {
		o.Access = opts.accessLog(e)
	}
	s, err := serve.New(c.Context, *o)
	if err != nil {
		return err
	}
	defer closeWith(&err, s.Close)
	if opts.mirror != "" {
		text, err := s.MirrorConfig(opts.mirror, opts.addr)
		if err != nil {
			return err
		}
		_, err = e.stdout.Write([]byte(text))
		return err
	}
	l, err := listen(c.Context, opts.addr)
	if err != nil {
		return err
	}
	if err := opts.announce(e, s, l.Addr()); err != nil {
		return errors.Join(err, l.Close())
	}
	ctx, stop := context.WithCancel(c.Context)
	var hangup sync.WaitGroup
	hangup.Go(func() { reloadOnHangup(ctx, e, s, pair) })
	defer hangup.Wait()
	defer stop()
	return s.Serve(ctx, l)
}

func (o *serveOptions) check(c *cli.Context) error {
	switch {
	case (o.cert == "") != (o.key == ""):
		return usagef(c, "--tls-cert and --tls-key go together")
	case o.name != "" && c.NArg() != 1:
		return usagef(c, "--name goes with one SOURCE; others are named SOURCE=NAME")
	case o.logFormat != "text" && o.logFormat != "json":
		return usagef(c, "--log-format %q: want text or json", o.logFormat)
	case o.serve.MaxConnections < 1:
		return usagef(c, "--max-connections %d: want 1 or more", o.serve.MaxConnections)
	}
	for flag, d := range map[string]time.Duration{
		"poll": o.poll, "keep": o.keep, "read-timeout": o.serve.ReadTimeout, "write-timeout": o.serve.WriteTimeout, "idle-timeout": o.serve.IdleTimeout,
	} {
		if d < 0 {
			return usagef(c, "--%s %s: want 0 or more", flag, d)
		}
	}
	if _, port, err := net.SplitHostPort(o.addr); err != nil || port == "" {
		return usagef(c, "--addr %q: want HOST:PORT", o.addr)
	} else if port == "0" && o.mirror != "" {
		return usagef(c, "--print-mirror-config has to know the port: --addr %q", o.addr)
	}
	if o.mirror != "" && !slices.Contains(serve.MirrorKinds, o.mirror) {
		return usagef(c, "--print-mirror-config %q: want one of %s", o.mirror, strings.Join(serve.MirrorKinds, ", "))
	}
	return nil
}

// source reads SOURCE[=NAME].
func (o *serveOptions) source(c *cli.Context, e *env, operand string) (serve.Source, error) {
	var src serve.Source
	name := o.name
	if at := strings.LastIndexByte(operand, '='); at > 0 && !exists(operand) {
		if name != "" {
			return src, usagef(c, "--name and SOURCE=NAME exclude each other")
		}
		operand, name = operand[:at], operand[at+1:]
	}
	ref, err := parseSource(c, operand)
	if err != nil {
		return src, err
	}
	src = serve.Source{
		RefName: ref.RefName, Digest: ref.Digest, Files: []string{ref.Location},
		Open: func(context.Context) (layout.Source, error) { return o.from.open(c, e, ref) },
	}
	switch ref.Transport {
	case "oci":
		src.Files = []string{filepath.Join(ref.Location, "index.json")}
	case "oci-archive":
		if manifest := parts.Find(ref.Location); manifest != "" {
			src.Files = append(src.Files, manifest) // of an archive that is split
		}
	case "dir":
		src.Files = []string{filepath.Join(ref.Location, "manifest.json")}
	case "docker":
		return src, layout.WithHint(usagef(c, "%s: serve takes files and directories", operand), "gloci-layout pull makes a layout of a repository")
	case "docker-archive":
		src.RefName = "" // it was chosen when the archive was opened
	}
	if name == "" {
		name = serve.NameOf(ref.Location)
	}
	src.Host, src.Name = serve.SplitHost(name)
	if err := serve.ValidateName(src.Name); err != nil {
		return src, usagef(c, "%v", err)
	}
	return src, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (o *serveOptions) accessLog(e *env) *slog.Logger {
	if o.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(e.stderr, nil))
	}
	return slog.New(slog.NewTextHandler(e.stderr, nil))
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		err = layout.WithHint(err, "another program has this port; --addr 127.0.0.1:0 takes a free one")
	case errors.Is(err, syscall.EACCES):
		err = layout.WithHint(err, "ports below 1024 are for root; take another one with --addr")
	}
	return l, err
}

// announce prints where the server is, and warns of what others could do there.
func (o *serveOptions) announce(e *env, s *serve.Server, at net.Addr) error {
	address := at.String()
	scheme := "http"
	if o.cert != "" {
		scheme = "https"
	}
	if tcp, ok := at.(*net.TCPAddr); ok && !tcp.IP.IsLoopback() && o.cert == "" {
		msg := "everybody who reaches this address can read what is served, and on the way it can be read and changed: --tls-cert encrypts it"
		if o.users != "" {
			msg = "passwords and content can be read and changed on the way to this address: --tls-cert encrypts them"
		}
		e.log.Warn(msg, "address", address)
	}
	for _, sum := range s.Summaries() {
		r := serveRepositoryResult{Type: "repository", Name: address + "/" + sum.Name, Sources: sum.Sources, Tags: sum.Tags}
		if err := e.confirm(r, "serving %s as %s: %s", strings.Join(sum.Sources, ", "), r.Name, plural(sum.Tags, "tag")); err != nil {
			return err
		}
	}
	if err := e.emit(serveResult{"listening", address, scheme + "://" + address}, "listening on %s://%s", scheme, address); err != nil {
		return err
	}
	e.stdout.flush() // whoever started it waits for this
	return e.stdout.err
}

// reloadOnHangup does so until ctx ends.
func reloadOnHangup(ctx context.Context, e *env, s *serve.Server, pair *certificate) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
		}
		if err := errors.Join(pair.reload(), s.Reload(ctx)); err != nil && ctx.Err() == nil {
			e.log.Warn("reload: what was there before is served", "error", err)
		}
	}
}
