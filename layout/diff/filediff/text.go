package filediff

import (
	"bytes"
	"cmp"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/gardenlinux/gloci-layout/layout/diff/pkglist"
)

const maxPackageList = pkglist.MaxBytes

// packageFormat tells which list of packages a file may be.
func packageFormat(name string) pkglist.Format { return pkglist.FormatOf(name) }

// unified returns a unified diff of two texts; "" if one is none, or too long.
func unified(path []string, nameA, nameB string, l *lockstep, limit int) string {
	if l.sizeA > int64(limit) || l.sizeB > int64(limit) || !isText(l.keepA) || !isText(l.keepB) {
		return ""
	}
	nameA, nameB = cmp.Or(strings.Join(path, "!/"), nameA, "-"), cmp.Or(strings.Join(path, "!/"), nameB, "-")
	d := diff.Diff("a/"+nameA, l.keepA, "b/"+nameB, l.keepB)
	_, d, _ = bytes.Cut(d, []byte("\n")) // "diff A B"
	return string(d)
}

// packages yields what differs between two lists of packages. What looks like
// one and is none was reported as a file, which is enough.
func (c *comparer) packages(path []string, l *lockstep, nameA, nameB string) {
	format := packageFormat(cmp.Or(lastOf(path), nameA))
	if format == pkglist.None {
		format = packageFormat(nameB)
	}
	if format == pkglist.None || l.sizeA > int64(len(l.keepA)) || l.sizeB > int64(len(l.keepB)) {
		return
	}
	a, errA := pkglist.Parse(format, l.keepA)
	b, errB := pkglist.Parse(format, l.keepB)
	if errA != nil || errB != nil {
		return
	}
	for _, p := range pkglist.Diff(a, b) {
		kind := Upgraded
		switch {
		case p.A == "":
			kind = Added
		case p.B == "":
			kind = Removed
		case pkglist.CompareVersions(p.A, p.B) > 0:
			kind = Downgraded
		}
		c.out.Emit(&Change{Kind: kind, Path: path, Package: &p})
	}
}
