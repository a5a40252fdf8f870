package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/delta"
)

func baseFlag(usage string) cli.Flag {
	return &cli.StringSliceFlag{Name: "base", Usage: usage}
}

// A wholeSource is a delta with its bases, to be closed together.
type wholeSource struct {
	*delta.Source
	bases *baseSources
}

func (w wholeSource) Close() error {
	return errors.Join(w.Source.Close(), w.bases.close())
}

// baseSources are what operands of --base name.
type baseSources struct {
	sources     []layout.Source
	inventories []*delta.Inventory
}

func (b *baseSources) close() error {
	var errs []error
	for _, src := range b.sources {
		errs = append(errs, src.Close())
	}
	return errors.Join(errs...)
}

// inventory lists what all of them hold.
func (b *baseSources) inventory(c *cli.Context) (*delta.Inventory, error) {
	all := b.inventories
	for _, src := range b.sources {
		v, err := delta.Take(c.Context, src)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return delta.Union(all...), nil
}

// openBases opens the operands of --base in their order. A delta is put together
// with those before it, if there are any with content. Inventories are allowed
// for where content is not asked for.
func (s *sourceFlags) openBases(c *cli.Context, e *env, operands []string, inventories bool) (b *baseSources, err error) {
	b = &baseSources{}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	for _, operand := range operands {
		ref, err := parseSource(c, operand)
		if err != nil {
			return b, err
		}
		if ref.Transport == "oci-archive" {
			v, err := readInventory(ref.Location)
			if err != nil {
				return b, err
			}
			if v != nil && !inventories {
				return b, usagef(c, "--base %s: an inventory has no content, and that is what is needed here", operand)
			}
			if v != nil {
				b.inventories = append(b.inventories, v)
				continue
			}
		}
		if (ref.RefName != "" || ref.Digest != "") && ref.Transport != "docker" {
			return b, usagef(c, "--base %s: a base is taken as a whole; leave out the ref name", operand)
		}
		src, err := s.openPlain(c, e, ref)
		if err != nil {
			return b, err
		}
		if carrier, ok := src.(delta.Carrier); ok && carrier.Delta() != nil && len(b.sources) > 0 {
			whole, err := delta.Open(c.Context, carrier, b.sources...)
			if err != nil {
				return b, errors.Join(err, src.Close())
			}
			src = whole
		}
		b.sources = append(b.sources, src)
	}
	return b, nil
}

// readInventory reads the inventory in file; nil if it is something else.
func readInventory(file string) (*delta.Inventory, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil //nolint:nilnil // whoever opens it as an archive says it
	}
	defer f.Close() //nolint:errcheck // only read
	var first [1]byte
	if _, err := io.ReadFull(f, first[:]); err != nil || first[0] != '{' {
		return nil, nil //nolint:nilnil // no JSON
	}
	v, err := delta.ReadInventory(io.MultiReader(bytes.NewReader(first[:]), f))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return v, nil
}

// complete puts src together with its base, if it is a delta and a base is
// known: that of --base, and what the command implies. Else it stays as it is,
// and says what is missing when that is asked for.
func (s *sourceFlags) complete(c *cli.Context, e *env, src layout.Source) (layout.Source, error) {
	carrier, ok := src.(delta.Carrier)
	if !ok || carrier.Delta() == nil {
		return src, nil
	}
	var operands []string
	if !s.ownBase {
		operands = c.StringSlice("base")
	}
	if len(operands) == 0 && s.implied == nil {
		return src, nil
	}
	b, err := s.openBases(c, e, operands, false)
	if err != nil {
		return nil, errors.Join(err, src.Close())
	}
	bases := b.sources
	if s.implied != nil {
		var implied []layout.Source
		implied, err = s.implied()
		bases = slices.Concat(implied, bases)
	}
	var whole *delta.Source
	if err == nil && len(bases) == 0 {
		err = delta.NoBase(src, carrier.Delta())
	}
	if err == nil {
		whole, err = delta.Open(c.Context, carrier, bases...)
	}
	if err != nil {
		return nil, errors.Join(err, b.close(), src.Close())
	}
	return wholeSource{whole, b}, nil
}
