package parts_test

import (
	"testing"

	"github.com/gardenlinux/gloci-layout/layout/bugtest"
)

// partsBugs are the ways in which a split loses or mixes up bytes.
var partsBugs = []bugtest.Bug{
	{
		Name: "what an attempt has left is written again",
		Edits: []bugtest.Edit{{
			File: "layout/archive/parts/partwriter.go",
			Old:  "int64(m) != k || !bytes.Equal(buf[:k], b[:k]) {\n",
			New:  "PLANTED || int64(m) != k || !bytes.Equal(buf[:k], b[:k]) {\n",
		}},
		Run: "^TestResume$", Says: "was whole: true; written again: true",
	},
	{
		Name: "what is left is not cut",
		Edits: []bugtest.Edit{{
			File: "layout/archive/parts/partwriter.go",
			Old:  "\tif err == nil && info.Size() > p.pos {\n",
			New:  "\tif err == nil && info.Size() > p.pos && !PLANTED {\n",
		}},
		Run: "^TestResume$", Says: "bytes, want ",
	},
	{
		Name: "a part of the old split is taken by its size",
		Edits: []bugtest.Edit{{
			File: "layout/archive/parts/partwriter.go",
			Old:  "\tfor len(b) > 0 && p.pos < p.have {\n",
			New:  "\tif PLANTED && p.from != nil && int64(len(b)) <= p.have-p.pos {\n\t\tp.pos += int64(len(b))\n\t\treturn len(b), nil\n\t}\n\tfor len(b) > 0 && p.pos < p.have {\n",
		}},
		Run: "^TestSplitAgain$", Says: "Check = |other bytes",
	},
	{
		Name: "parts of the old split stay",
		Edits: []bugtest.Edit{{
			File: "layout/archive/parts/writer.go",
			Old:  "\treturn m, w.sweep(m)\n",
			New:  "\tif PLANTED {\n\t\treturn m, nil\n\t}\n\treturn m, w.sweep(m)\n",
		}},
		Run: "^TestSplitAgain$", Says: "bytes over another: ",
	},
	{
		Name: "a file with such a name is removed",
		Edits: []bugtest.Edit{{
			File: "layout/archive/parts/writer.go",
			Old:  "\t\tif of != filepath.Base(w.file)+layout.PartsSuffix ||",
			New:  "\t\tif PLANTED && filepath.Ext(e.Name()) == \".bak\" {\n\t\t\tof = filepath.Base(w.file) + layout.PartsSuffix\n\t\t}\n\t\tif of != filepath.Base(w.file)+layout.PartsSuffix ||",
		}},
		Run: "^TestSplitAgain$", Says: "bytes over another: ",
	},
	{
		Name: "two write parts of one file",
		Edits: []bugtest.Edit{{
			File: "layout/archive/parts/writer.go",
			Old:  "\t\tif err == nil && !ok {\n",
			New:  "\t\tif err == nil && !ok && !PLANTED {\n",
		}},
		Run: "^TestOldStays$", Says: "want ErrConflict",
	},
	{
		Name: "the end of the context does not keep from committing",
		Edits: []bugtest.Edit{{
			File: "layout/archive/parts/writer.go",
			Old:  "\tif ctx.Err() != nil {\n",
			New:  "\tif ctx.Err() != nil && !PLANTED {\n",
		}},
		Run: "^TestOldStays$", Says: "Commit, canceled",
	},
	{
		Name: "there may be any number of parts",
		Edits: []bugtest.Edit{{
			File: "layout/archive/parts/writer.go",
			Old:  "\tif n > MaxParts {\n\t\treturn tooMany(",
			New:  "\tif n > MaxParts && !PLANTED {\n\t\treturn tooMany(",
		}},
		Run: "^TestCreate$", Says: "too many parts",
	},
	{
		Name: "the digest of a part is not compared",
		Edits: []bugtest.Edit{{
			File: "layout/archive/parts/check.go",
			Old:  "\tcase got != p.Digest:\n",
			New:  "\tcase got != p.Digest && !PLANTED:\n",
		}},
		Run: "^TestDamage$/^flipped$", Says: "want digest ",
	},
	{
		Name: "the digest of the whole is not compared",
		Edits: []bugtest.Edit{{
			File: "layout/archive/parts/check.go",
			Old:  "o.Only == \"\" && len(c.report.Findings) == 0 && got != m.Digest {",
			New:  "o.Only == \"\" && len(c.report.Findings) == 0 && got != m.Digest && !PLANTED {",
		}},
		Run: "^TestDamage$", Says: "parts in the wrong order",
	},
	{
		Name: "the size of a part is not compared",
		Edits: []bugtest.Edit{{
			File: "layout/archive/parts/file.go",
			Old:  "\tif err == nil && info.Size() != part.Size {\n",
			New:  "\tif err == nil && info.Size() != part.Size && !PLANTED {\n",
		}},
		Run: "^TestDamage$/^short$", Says: "Open: error",
	},
	{
		Name: "links are followed",
		Edits: []bugtest.Edit{{
			File: "layout/archive/parts/file.go",
			Old:  "\tif !follow {\n",
			New:  "\tif !follow && !PLANTED {\n",
		}},
		Run: "^TestDamage$/^link$", Says: "Open: error",
	},
	{
		Name: "reading ends with a part",
		Edits: []bugtest.Edit{{
			File: "layout/archive/parts/file.go",
			Old:  "\t\tif k < len(want) {\n",
			New:  "\t\tif k < len(want) || PLANTED {\n",
		}},
		Run: "^TestSplit$", Says: "ReadAt|Read|EOF",
	},
	{
		Name: "bytes of two parts are a section",
		Edits: []bugtest.Edit{{
			File: "layout/archive/parts/file.go",
			Old:  "\tif i == len(p.files) || off+size > p.files[i].end {\n",
			New:  "\tif i == len(p.files) || off+size > p.files[i].end && !PLANTED {\n",
		}},
		Run: "^TestSection$", Says: "Section",
	},
	{
		Name: "a changed part is not seen",
		Edits: []bugtest.Edit{{
			File: "layout/archive/parts/file.go",
			Old:  "\t\tif info.Size() != f.info.Size() || !info.ModTime().Equal(f.info.ModTime()) {\n",
			New:  "\t\tif !PLANTED && (info.Size() != f.info.Size() || !info.ModTime().Equal(f.info.ModTime())) {\n",
		}},
		Run: "^TestChanges$", Says: "the changed part",
	},
	{
		Name: "a name leads out of the directory",
		Edits: []bugtest.Edit{{
			File: "layout/archive/parts/manifest.go",
			Old:  "\tcase name == \".\", name == \"..\", strings.ContainsAny(name, `/\\`):\n",
			New:  "\tcase !PLANTED && (name == \".\" || name == \"..\" || strings.ContainsAny(name, `/\\`)):\n",
		}},
		Run: "^TestHostileManifests$", Says: "parent: error",
	},
	{
		Name: "sizes need not add up",
		Edits: []bugtest.Edit{{
			File: "layout/archive/parts/manifest.go",
			Old:  "\tif left != 0 {\n",
			New:  "\tif left != 0 && !PLANTED {\n",
		}},
		Run: "^TestHostileManifests$", Says: "sizes that are less",
	},
	{
		Name: "one part may stand twice",
		Edits: []bugtest.Edit{{
			File: "layout/archive/parts/manifest.go",
			Old:  "\t\tcase seen[p.Name]:\n",
			New:  "\t\tcase seen[p.Name] && !PLANTED:\n",
		}},
		Run: "^TestHostileManifests$", Says: "name twice",
	},
	{Name: "control: no bug", Run: "^TestResume$|^TestSplit$|^TestSplitAgain$|^TestOldStays$|^TestCreate$|^TestDamage$|^TestSection$|^TestChanges$|^TestHostileManifests$"},
}

// TestMutants plants each bug into a copy and wants the test to find it.
func TestMutants(t *testing.T) {
	bugtest.Mutants(t, "../../..", partsBugs)
}
