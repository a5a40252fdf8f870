package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"unicode"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/gardenlinux/gloci-layout/internal/pattern"
	"github.com/gardenlinux/gloci-layout/layout"
)

var (
	// ErrUnauthorized reports a registry that wants other credentials, or any.
	ErrUnauthorized = errors.New("unauthorized")
	// ErrStalled reports a request on which no byte moved for too long.
	ErrStalled = errors.New("no data for too long")
	// ErrTokenHost reports a token server that may not be given credentials.
	ErrTokenHost = errors.New("untrusted token server")
)

// An Error is what a registry answered to a request, or why there was no
// answer. Its text holds no query of a URL, as signatures stand there, no
// control characters and at most 4096 bytes of what the registry said.
type Error struct {
	Status int    // 0 without an answer
	Code   string // error code of the distribution specification, if any
	Err    error
	text   string
}

func (e *Error) Error() string { return e.text }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is tells errors.Is that a 401 or 403 is [ErrUnauthorized] and a 404
// [layout.ErrNotFound].
func (e *Error) Is(target error) bool {
	switch target {
	case ErrUnauthorized:
		return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	case layout.ErrNotFound:
		return e.Status == http.StatusNotFound
	}
	return false
}

// wrap gives err of an operation on what (a tag or digest) the form in which it
// leaves this package.
func (c *Client) wrap(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	var done *Error
	if errors.As(err, &done) || errors.Is(err, layout.ErrMismatch) {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	name := c.Named.Name()
	switch {
	case what == "":
	case strings.Contains(what, ":"):
		name += "@" + what
	default:
		name += ":" + what
	}
	e := &Error{Err: err}
	var resp *errcode.ErrorResponse
	var urlErr *url.Error
	text := ""
	switch {
	case errors.As(err, &resp):
		e.Status = resp.StatusCode
		if len(resp.Errors) > 0 {
			e.Code = resp.Errors[0].Code
		}
		text = resp.Method + ": status " + fmt.Sprint(resp.StatusCode) + " " + http.StatusText(resp.StatusCode)
		if len(resp.Errors) > 0 {
			text += ": " + resp.Errors.Error()
		}
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		e.Status = http.StatusUnauthorized
		text = "status 401 Unauthorized: no credentials are configured"
	case errors.Is(err, errdef.ErrNotFound):
		e.Status = http.StatusNotFound
		text = layout.ErrNotFound.Error()
	case errors.As(err, &urlErr):
		text = strings.ToUpper(urlErr.Op) + ": " + urlErr.Err.Error()
	default:
		text = err.Error()
	}
	e.text = name + ": " + clean(text)
	return hint(e)
}

// hint adds the advice for causes whose cure is known.
func hint(e *Error) error {
	var unknown x509.UnknownAuthorityError
	var record tls.RecordHeaderError
	switch {
	case e.Status == http.StatusUnauthorized:
		return layout.WithHint(e, "log in with podman login or docker login, or name credentials with --authfile or --creds")
	case errors.As(e.Err, &unknown):
		return layout.WithHint(e, "put the authority's certificate into a certs.d directory or name one with --cert-dir")
	case errors.As(e.Err, &record), strings.Contains(e.Err.Error(), "server gave HTTP response to HTTPS client"):
		return layout.WithHint(e, "--tls-verify=false allows plain HTTP")
	case errors.Is(e.Err, ErrTokenHost), strings.Contains(e.Err.Error(), "bearer realm host"): // the second is oras-go's
		return layout.WithHint(e, "--trust-auth-host HOST lets the credentials go there")
	}
	return e
}

var urlTail = pattern.New(`(https?://)(?:[^/\s"@]*@)?([^\s"?]*)\?[^\s"]*`)

// clean makes text of the network fit for a terminal.
func clean(s string) string {
	s = urlTail.ReplaceAllString(s, "$1$2")
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
	const limit = 4096
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + " ..."
	}
	return s
}

// retryable tells whether the same request may pass later.
func retryable(err error) bool {
	var local *localError
	var once *unclearError
	var resp *errcode.ErrorResponse
	var verify *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var urlErr *url.Error
	switch {
	case errors.As(err, &local), errors.As(err, &once), errors.Is(err, layout.ErrMismatch), errors.Is(err, ErrTokenHost), errors.Is(err, errRedirect):
		return false
	case errors.As(err, &resp):
		switch resp.StatusCode {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	case errors.Is(err, ErrStalled):
		return true
	case errors.As(err, &verify), errors.As(err, &record):
		return false
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.As(err, &urlErr):
		return !strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
	}
	var netErr net.Error
	return errors.As(err, &netErr) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
