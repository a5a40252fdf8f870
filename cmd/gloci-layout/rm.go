package main

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
)

func newRmCommand(e *env) *cli.Command {
	var sel selectFlags
	var all bool
	return &cli.Command{
		Name: "rm", Usage: "remove entries", ArgsUsage: "LAYOUT [REF|@DIGEST...]",
		Description: "REF removes the entries of index.json that have this ref name. @DIGEST removes every entry with this digest, " +
			"in index.json and in all indexes below it; REF@DIGEST only below that ref name.\n\n" +
			"With flags that select, the selected manifest is removed from the indexes that REF or @DIGEST name, or from all. " +
			"It has to be exactly one, unless --all says otherwise; the error lists the candidates.\n\n" +
			"Indexes that lose an entry are written anew, and so are those above them. Content stays on disk until gc.",
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "all", Usage: "remove all manifests that the flags select", Destination: &all},
		}, sel.flags()...),
		Action: func(c *cli.Context) error {
			targets, err := parseTargets(c, c.Args().Tail())
			if err != nil {
				return err
			}
			if !sel.given(c) {
				if len(targets) == 0 {
					return usagef(c, "name what to remove, or select it with flags")
				}
				return runRm(c.Context, e, layoutPath(c.Args().First()), targets, nil, all)
			}
			s, err := sel.selector(c)
			if err != nil {
				return err
			}
			return runRm(c.Context, e, layoutPath(c.Args().First()), targets, &s, all)
		},
	}
}

// A target is one REF, @DIGEST or REF@DIGEST.
type target struct {
	refName string
	digest  digest.Digest
}

func parseTargets(c *cli.Context, operands []string) ([]target, error) {
	var targets []target
	for _, o := range operands {
		refName, d, err := parseTarget(c, o)
		if err != nil {
			return nil, err
		}
		targets = append(targets, target{refName, d})
	}
	return targets, nil
}

func runRm(ctx context.Context, e *env, dir string, targets []target, sel *layout.Selector, all bool) error {
	var changes []changeResult
	err := e.update(ctx, dir, func(tx *layout.Tx) error {
		r := remover{tx: tx}
		defer func() { changes = r.changes }()
		if sel == nil {
			for _, t := range targets {
				if err := r.target(ctx, t); err != nil {
					return err
				}
			}
			return nil
		}
		if len(targets) == 0 {
			targets = []target{{}}
		}
		for _, t := range targets {
			if err := r.selected(ctx, t, *sel, all); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return e.confirmChanges(changes)
}

// A remover takes entries out of index.json and of the indexes below it.
type remover struct {
	tx      *layout.Tx
	changes []changeResult
}

// target removes what the user named without further flags.
func (r *remover) target(ctx context.Context, t target) error {
	if t.digest == "" {
		found, err := r.entries(ctx, t.refName)
		if err != nil {
			return err
		}
		for _, i := range found {
			r.changes = append(r.changes, newChange("removed", r.tx.Index().Entries()[i]))
		}
		r.tx.Index().Remove(found...)
		return nil
	}
	before := len(r.changes)
	if err := r.below(ctx, t.refName, map[digest.Digest]bool{t.digest: true}); err != nil {
		return err
	}
	if len(r.changes) == before {
		return fmt.Errorf("%s@%s: no entry has this digest: %w", t.refName, t.digest, layout.ErrNotFound)
	}
	return nil
}

// selected removes manifests below t that sel chooses.
func (r *remover) selected(ctx context.Context, t target, sel layout.Selector, all bool) error {
	src := r.tx.Source()
	roots, err := layout.Resolve(ctx, src, t.refName, t.digest)
	if err != nil {
		return err
	}
	remove := map[digest.Digest]bool{}
	if all {
		matches, err := layout.Select(ctx, src, roots, sel)
		if err != nil {
			return err
		}
		if len(matches) == 0 {
			return fmt.Errorf("%s: %s: %w", src, sel, layout.ErrNotFound)
		}
		for _, m := range matches {
			remove[m.Desc.Digest] = true
		}
	} else {
		m, err := layout.SelectOne(ctx, src, roots, sel)
		if err != nil {
			return err
		}
		remove[m.Desc.Digest] = true
	}
	return r.below(ctx, t.refName, remove)
}

// entries returns the numbers of the entries of index.json that refName names;
// all of them if it is empty.
func (r *remover) entries(ctx context.Context, refName string) ([]int, error) {
	x := r.tx.Index()
	if refName == "" {
		all := make([]int, x.Len())
		for i := range all {
			all[i] = i
		}
		return all, nil
	}
	found := x.FindRef(refName)
	entries := x.Entries()
	for _, i := range found {
		if layout.RefName(entries[i]) == layout.RefName(entries[found[0]]) {
			continue
		}
		// A tag of several full references: whose entry is meant?
		amb := &layout.AmbiguousError{What: r.tx.Source().String() + ":" + refName}
		for _, j := range found {
			amb.Candidates = append(amb.Candidates, layout.Match{Desc: entries[j], RefName: layout.RefName(entries[j])})
		}
		return nil, layout.WithHint(amb, "write the whole ref name")
	}
	if len(found) == 0 {
		_, err := layout.Resolve(ctx, r.tx.Source(), refName, "")
		return nil, err
	}
	return found, nil
}

// below removes the digests from index.json's entries named refName and from
// all indexes that these reach.
func (r *remover) below(ctx context.Context, refName string, remove map[digest.Digest]bool) error {
	numbers, err := r.entries(ctx, refName)
	if err != nil {
		return err
	}
	removals, err := r.tx.RemoveEntries(ctx, numbers, remove)
	for _, removal := range removals {
		change := newChange("removed", removal.Entry)
		change.Into = removal.Into
		r.changes = append(r.changes, change)
	}
	return err
}
