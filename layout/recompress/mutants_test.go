package recompress_test

import (
	"testing"

	"github.com/gardenlinux/gloci-layout/layout/bugtest"
)

// recompressBugs are the ways in which recompressed layers fail their readers.
var recompressBugs = []bugtest.Bug{
	{
		Name: "diffIDs are not compared",
		Edits: []bugtest.Edit{{
			File: "layout/recompress/recompress.go",
			Old:  "got != w && strings.HasPrefix(",
			New:  "got != w && !PLANTED && strings.HasPrefix(",
		}},
		Run: "^TestErrors$", Says: "another diffID",
	},
	{
		Name: "the diffID is of the bytes of the layer",
		Edits: []bugtest.Edit{{
			File: "layout/recompress/stream.go",
			Old:  "\tc.diffID = hash.Digest()\n",
			New:  "\tc.diffID = hash.Digest()\n\tif PLANTED {\n\t\tc.diffID = c.desc.Digest\n\t}\n",
		}},
		Run: "^TestDocker$", Says: "has the diffID",
	},
	{
		Name: "Docker gets zstd",
		Edits: []bugtest.Edit{{
			File: "layout/recompress/recompress.go",
			Old:  "\tif r.opts.OCITypes || r.opts.Format != compress.Zstd ||",
			New:  "\tif PLANTED || r.opts.OCITypes || r.opts.Format != compress.Zstd ||",
		}},
		Run: "^TestDocker$", Says: "want ErrConflict",
	},
	{
		Name: "the media type stays",
		Edits: []bugtest.Edit{{
			File: "layout/recompress/recompress.go",
			Old:  "\t\tlayer.New.MediaType = typeOf(base, join, r.opts.Format)\n",
			New:  "\t\tif !PLANTED {\n\t\t\tlayer.New.MediaType = typeOf(base, join, r.opts.Format)\n\t\t}\n",
		}},
		Run: "^TestDockerNone$", Says: "with a ",
	},
	{
		Name: "the level is not looked at",
		Edits: []bugtest.Edit{{
			File: "layout/recompress/recompress.go",
			Old:  "\tcase from == r.opts.Format && r.opts.Level == 0:\n",
			New:  "\tcase from == r.opts.Format && (r.opts.Level == 0 || PLANTED):\n",
		}},
		Run: "^TestErrors$", Says: "another diffID",
	},
	{
		Name: "a layer of two manifests is compressed twice",
		Edits: []bugtest.Edit{{
			File: "layout/recompress/recompress.go",
			Old:  "\t\t\tif l.Kept != \"\" || begun[l.Old.Digest] {\n",
			New:  "\t\t\tif l.Kept != \"\" || begun[l.Old.Digest] && !PLANTED {\n",
		}},
		Run: "^TestMany$", Says: "was compressed [2-9] times",
	},
	{
		Name: "entries are not marked",
		Edits: []bugtest.Edit{{
			File: "layout/recompress/rules.go",
			Old:  "\tif !m.IsImage() {\n",
			New:  "\tif !m.IsImage() || PLANTED {\n",
		}},
		Run: "^TestDocker$", Says: "entry ",
	},
	{
		Name: "stale annotations stay",
		Edits: []bugtest.Edit{{
			File: "layout/recompress/rules.go",
			Old:  "\tfor _, key := range dropped {\n",
			New:  "\tif PLANTED {\n\t\treturn nil\n\t}\n\tfor _, key := range dropped {\n",
		}},
		Run: "^TestStaleAnnotations$", Says: "annotations map",
	},
	{
		Name: "no rule is asked",
		Edits: []bugtest.Edit{{
			File: "layout/recompress/rules.go",
			Old:  "\t\tif r.applies(desc, f) {\n",
			New:  "\t\tif !PLANTED && r.applies(desc, f) {\n",
		}},
		Run: "^TestRules$", Says: `want rule "helm"`,
	},
	{
		Name: "a title is not looked at",
		Edits: []bugtest.Edit{{
			File: "layout/recompress/rules.go",
			Old:  "\t\t\treturn named != compress.None && named != f\n",
			New:  "\t\t\treturn named != compress.None && named != f && !PLANTED\n",
		}},
		Run: "^TestRules$", Says: "titled otherwise: ",
	},
	{
		Name: "damage is taken for wrong content",
		Edits: []bugtest.Edit{{
			File: "layout/recompress/stream.go",
			Old:  "errors.Is(damage, layout.ErrMismatch) {\n",
			New:  "errors.Is(damage, layout.ErrMismatch) && !PLANTED {\n",
		}},
		Run: "^TestBadLayers$", Says: "damaged: ",
	},
	{
		Name: "what cannot be uncompressed is cut off",
		Edits: []bugtest.Edit{{
			File: "layout/recompress/stream.go",
			Old:  "\t\ttw.CloseWithError(err)\n\t\treturn err\n",
			New:  "\t\tif PLANTED {\n\t\t\terr = nil\n\t\t}\n\t\ttw.CloseWithError(err)\n\t\treturn err\n",
		}},
		Run: "^TestBadLayers$", Says: "cut short: <nil>",
	},
	{
		Name: "an estimate is of the content",
		Edits: []bugtest.Edit{{
			File: "layout/recompress/stream.go",
			Old:  "\tz, err := compress.NewWriter(&out, r.opts.Format, r.opts.Level)\n",
			New:  "\tif PLANTED {\n\t\tr.opts.Format = compress.None\n\t}\n\tz, err := compress.NewWriter(&out, r.opts.Format, r.opts.Level)\n",
		}},
		Run: "^TestEstimate$", Says: "estimated ",
	},
	{
		Name: "the temporary layout stays",
		Edits: []bugtest.Edit{{
			File: "layout/recompress/copy.go",
			Old:  "\treturn errors.Join(err, os.RemoveAll(c.dir), c.lock.Close())\n",
			New:  "\tif PLANTED {\n\t\treturn errors.Join(err, c.lock.Close())\n\t}\n\treturn errors.Join(err, os.RemoveAll(c.dir), c.lock.Close())\n",
		}},
		Run: "^TestMany$", Says: "left over",
	},
	{Name: "control: no bug", Run: "^TestErrors$|^TestDocker$|^TestDockerNone$|^TestMany$|^TestStaleAnnotations$|^TestRules$|^TestBadLayers$|^TestEstimate$"},
}

// TestMutants plants each bug into a copy and wants the test to find it.
func TestMutants(t *testing.T) {
	bugtest.Mutants(t, "../..", recompressBugs)
}
