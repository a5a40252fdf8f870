// Package registry is the client of one repository of a registry: the HTTP
// transport with its limits, credentials and where they may go, retries, and
// the few operations of the distribution specification that a copy needs.
//
// Configuration is that of podman and skopeo, read by containers/image; the
// requests are made by oras-go.
package registry

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"time"
)

const (
	// DefaultJobs is how many transfers run at once unless Options.Jobs says
	// otherwise.
	DefaultJobs = 8
	// smallPerJob is how many requests without much content, which only wait
	// for their answer, take the place of a transfer.
	smallPerJob = 4
	// DefaultTries is how often a request that may pass next time is sent unless
	// Options.Tries says otherwise.
	DefaultTries = 6
)

// A Secret is text that may reach a registry but no message: it prints as
// "[redacted]" in every form that fmt, encoding/json and log/slog have.
type Secret string

const redacted = "[redacted]"

func (Secret) String() string { return redacted }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return redacted }

// LogValue hides the secret from log/slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON hides the secret from encoding/json.
func (Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// Options say how to reach a registry. The fields are named as the flags of
// skopeo; nil is the zero value, which means what podman does by default.
type Options struct {
	// AuthFile is the file with credentials; it must exist. Empty means the
	// variable REGISTRY_AUTH_FILE, then the files that podman and docker use.
	AuthFile string
	// Creds are USER:PASSWORD, or USER alone; they replace those of files.
	Creds Secret
	// NoCreds sends no credentials at all.
	NoCreds bool
	// TLSVerify says whether HTTPS with a valid certificate is required. With
	// false, certificates are not checked and a registry that does not speak
	// HTTPS is asked in plain HTTP. Nil leaves it to registries.conf
	// ("insecure"), where the default is true.
	TLSVerify *bool
	// CertDir holds *.crt (authorities), *.cert and *.key (client
	// certificates). Empty means HOST:PORT below the certs.d directories.
	CertDir string
	// RegistriesConf replaces the system's registries.conf; empty means the
	// variable CONTAINERS_REGISTRIES_CONF, then the files of podman.
	RegistriesConf string
	// RegistriesConfDir replaces the system's registries.conf.d.
	RegistriesConfDir string
	// TrustAuthHosts are hosts whose token servers may be given credentials.
	// Always trusted are the registry's own host and the token servers of
	// large registries that are known to be elsewhere.
	TrustAuthHosts []string
	// Policy is the file with the signature policy (containers-policy.json(5));
	// empty means that of the user or the system, if there is one.
	Policy string
	// RegistriesDir replaces the directories that say where signatures lie which
	// no registry has (containers-registries.d(5)).
	RegistriesDir string
	// UserAgent is sent with every request.
	UserAgent string
	// Jobs is how many transfers run at once; 0 means DefaultJobs. Beside one
	// job, up to four requests without much content run at once for each.
	Jobs int
	// Tries is how often a request that may pass next time is sent; 0 means
	// DefaultTries.
	Tries int
	// StallTimeout ends a request that moves no byte for so long; 0 means 30
	// seconds. A registry has ten times as long to answer an upload.
	StallTimeout time.Duration
	// Rate is how many bytes per second are sent and received in all, headers
	// apart; 0 means no limit.
	Rate int64
	// Trace is called after every request, also from several goroutines.
	Trace func(Exchange)
	// Logger takes warnings; nil drops them.
	Logger *slog.Logger

	// Transport replaces the network in tests.
	Transport http.RoundTripper

	shared *shared // see Share; nil opens a client each time
}

// An Exchange is one request and its answer, without anything secret.
type Exchange struct {
	Method string
	Host   string
	Path   string // without the query, which may hold signatures
	Status int    // 0 if there was no answer
}

// jobs returns the number of parallel transfers.
func (o *Options) jobs() int {
	if o.Jobs <= 0 {
		return DefaultJobs
	}
	return o.Jobs
}

// small returns the number of parallel requests without much content. Who asks
// for one job gets one request at a time.
func (o *Options) small() int {
	if o.jobs() == 1 {
		return 1
	}
	return smallPerJob * o.jobs()
}

func (o *Options) tries() int {
	if o.Tries <= 0 {
		return DefaultTries
	}
	return o.Tries
}

func (o *Options) stall() time.Duration {
	if o.StallTimeout <= 0 {
		return 30 * time.Second
	}
	return o.StallTimeout
}

func (o *Options) log() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}
