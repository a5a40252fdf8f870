package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	layoutsync "github.com/gardenlinux/gloci-layout/sync"
)

// registryFlags say how to reach a registry; their names are skopeo's.
type registryFlags struct {
	prefix                   string // "", "src-" or "dest-"
	authFile, creds, certDir string
	noCreds, tlsVerify       bool
	registriesConf, policy   string
	registriesDir            string
	rate                     string
	retry                    int
	timeout                  time.Duration
	common                   *registryFlags // those without prefix
	end                      context.CancelFunc
}

func jobsFlag(to *int) cli.Flag {
	return &cli.IntFlag{Name: "jobs", Usage: "transfer `N` blobs at once; of small requests, up to four times as many", Value: layoutsync.DefaultJobs, Destination: to}
}

func (r *registryFlags) flags(prefix string) []cli.Flag {
	r.prefix = prefix
	// Those with a prefix are explained by those without.
	end := map[string]string{"src-": "the source", "dest-": "the destination"}[prefix]
	usage := func(s, name string) string {
		if prefix == "" {
			return s
		}
		return "as --" + name + ", for " + end + " only"
	}
	flags := []cli.Flag{
		&cli.StringFlag{Name: prefix + "authfile", Usage: "read credentials from `FILE`, as podman login writes it", Destination: &r.authFile},
		&cli.StringFlag{Name: prefix + "creds", Usage: "log in as `USER:PASSWORD`", Destination: &r.creds},
		&cli.BoolFlag{Name: prefix + "no-creds", Usage: usage("send no credentials", "no-creds"), Destination: &r.noCreds},
		&cli.StringFlag{Name: prefix + "cert-dir", Usage: "read certificates (*.crt, *.cert, *.key) from `DIR`", Destination: &r.certDir},
		&cli.BoolFlag{Name: prefix + "tls-verify", Usage: usage("require HTTPS with a valid certificate; --tls-verify=false does without", "tls-verify"), Destination: &r.tlsVerify},
	}
	if prefix != "" {
		for _, f := range flags {
			if f, ok := f.(*cli.StringFlag); ok {
				_, placeholder, _ := strings.Cut(f.Usage, "`")
				placeholder, _, _ = strings.Cut(placeholder, "`")
				f.Usage = usage("", strings.TrimPrefix(f.Name, prefix)) + ": `" + placeholder + "`"
			}
		}
		return flags
	}
	return append(
		flags,
		&cli.StringFlag{Name: "registries-conf", Usage: "use `FILE` in place of the system's registries.conf", Destination: &r.registriesConf},
		&cli.StringFlag{Name: "policy", Usage: "use the signature policy in `FILE`", Destination: &r.policy},
		&cli.StringFlag{Name: "registries.d", Usage: "use `DIR` in place of the system's registries.d, which says where signatures of GnuPG lie", Destination: &r.registriesDir},
		&cli.StringFlag{Name: "limit-rate", Usage: "send and receive at most `BYTES` per second in all; K, M and G may follow the number", Destination: &r.rate},
		&cli.IntFlag{Name: "retry", Usage: "send a request that failed up to `N` times more, where that may help", Value: layoutsync.DefaultTries - 1, Destination: &r.retry},
		&cli.DurationFlag{Name: "timeout", Usage: "give up after `TIME`, such as 90s or 1h", Destination: &r.timeout},
		&cli.StringSliceFlag{Name: "trust-auth-host", Usage: "let the token server on `HOST` have the credentials, where it is not the registry itself"},
	)
}

// options returns what the flags say. Those without prefix are for the
// destination, where there is one: a password is for one registry only. A file
// of credentials knows which are whose, so it is for both.
func (r *registryFlags) options(c *cli.Context, e *env) (*layoutsync.RegistryOptions, error) {
	common := r
	if r.common != nil {
		common = r.common
	}
	opts := &layoutsync.RegistryOptions{
		AuthFile: cmp.Or(r.authFile, common.authFile), Creds: layoutsync.Secret(r.creds), NoCreds: r.noCreds, CertDir: r.certDir,
		RegistriesConf: common.registriesConf, Policy: common.policy, RegistriesDir: common.registriesDir, TrustAuthHosts: c.StringSlice("trust-auth-host"),
		UserAgent: "gloci-layout/" + version(), Logger: e.log,
	}
	if err := common.limits(c, opts); err != nil {
		return nil, err
	}
	if c.IsSet(r.prefix + "tls-verify") {
		opts.TLSVerify = &r.tlsVerify
	}
	if r.prefix == "dest-" {
		opts.Creds = cmp.Or(opts.Creds, layoutsync.Secret(common.creds))
		opts.CertDir = cmp.Or(opts.CertDir, common.certDir)
		opts.NoCreds = opts.NoCreds || common.noCreds
		if opts.TLSVerify == nil && c.IsSet("tls-verify") {
			opts.TLSVerify = &common.tlsVerify
		}
	}
	if opts.NoCreds && opts.Creds != "" {
		return nil, usagef(c, "--%screds and --%sno-creds exclude each other", r.prefix, r.prefix)
	}
	if e.verbose {
		opts.Trace = func(x layoutsync.Exchange) {
			e.log.Debug(fmt.Sprintf("%s %s%s: %d", x.Method, x.Host, x.Path, x.Status))
		}
	}
	return opts, nil
}

// limits reads the flags that bound what requests may cost. The time begins to
// run with the first call.
func (r *registryFlags) limits(c *cli.Context, opts *layoutsync.RegistryOptions) (err error) {
	if r.rate != "" {
		if opts.Rate, err = parseSize(r.rate); err != nil || opts.Rate < minRate {
			return usagef(c, "--limit-rate %q: want a number of bytes per second, %d or more", r.rate, minRate)
		}
	}
	switch {
	case r.retry < 0:
		return usagef(c, "--retry %d: want 0 or more", r.retry)
	case r.timeout < 0:
		return usagef(c, "--timeout %v: want a positive time", r.timeout)
	}
	opts.Tries = r.retry + 1
	if r.timeout > 0 && r.end == nil {
		c.Context, r.end = context.WithTimeoutCause(c.Context, r.timeout, fmt.Errorf("not done within %v (--timeout)", r.timeout))
	}
	return nil
}

// minRate is the least rate at which a transfer is not taken for stalled.
const minRate = 16 << 10

// parseSize reads a number of bytes; K, M and G stand for powers of 1024.
func parseSize(s string) (int64, error) {
	unit := int64(1)
	for i, suffix := range []string{"K", "M", "G"} {
		if number, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = number, 1<<(10*(i+1))
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err == nil && (n < 0 || n > math.MaxInt64/unit) {
		err = strconv.ErrRange
	}
	return n * unit, err
}

// referrersFlags say whether what refers to the content goes with it.
type referrersFlags struct{ with, without bool }

func (r *referrersFlags) flags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "referrers", Usage: "take along what refers to the content and to what it names: signatures, SBOMs and the like", Value: true, Destination: &r.with},
		&cli.BoolFlag{Name: "no-referrers", Usage: "leave it out, as --referrers=false", Destination: &r.without},
	}
}

func (r *referrersFlags) out() bool { return r.without || !r.with }
