package main

import (
	"fmt"
	"strings"

	layoutsync "github.com/gardenlinux/gloci-layout/sync"
)

// An outcomeError is a push that failed, and how the tags stand after it.
type outcomeError struct {
	err     error
	outcome string
}

func (e *outcomeError) Error() string { return e.err.Error() + "\n" + e.outcome }
func (e *outcomeError) Unwrap() error { return e.err }

// withOutcome says which it was: nothing, or not all could be put back. A push
// that failed while it made its plan has no tags yet, and says nothing.
func withOutcome(err error, r *layoutsync.Report) error {
	if err == nil || len(r.Tags) == 0 || r.DryRun {
		return err
	}
	restored := 0
	var left []string
	for _, t := range r.Tags {
		switch t.State {
		case layoutsync.TagUnchanged, layoutsync.TagPending:
		case layoutsync.TagRestored:
			restored++
		default:
			name := t.Tag
			if t.Repository != "" {
				name = t.Repository + ":" + t.Tag
			}
			left = append(left, name+" ("+string(t.State)+")")
		}
	}
	outcome := "no tag was moved"
	switch {
	case len(left) > 0:
		outcome = fmt.Sprintf("not all tags could be put back: %s", strings.Join(left, ", "))
	case restored > 0:
		outcome = fmt.Sprintf("all tags are as before: %s put back", plural(restored, "tag"))
	}
	return &outcomeError{err, outcome}
}
