package delta_test

import (
	"testing"

	"github.com/gardenlinux/gloci-layout/layout/bugtest"
)

// recipeBugs are the ways in which patches of compressed blobs make other blobs, or
// let others make what they like.
var recipeBugs = []bugtest.Bug{
	{
		Name: "a recipe is taken without following it",
		Edits: []bugtest.Edit{{
			File: "layout/archive/patches.go",
			Old:  "\tif !c.Complete() {\n",
			New:  "\tif !c.Complete() && !PLANTED {\n",
		}},
		Run: "^TestPatchOfContent$/^another_way_at_the_end$", Says: "recipes, ",
	},
	{
		Name: "the cores reach the bytes",
		Edits: []bugtest.Edit{{
			File: "compress/writer.go",
			Old:  "\tif err := gz.SetConcurrency(block, min(",
			New:  "\tif PLANTED {\n\t\tblock *= runtime.GOMAXPROCS(0)\n\t}\n\tif err := gz.SetConcurrency(block, min(",
		}},
		Run: "^TestRecipesOnAnyMachine$", Says: "want 2 with recipes|other bytes",
	},
	{
		Name: "the bytes of the predecessor are taken for the content",
		Edits: []bugtest.Edit{{
			File: "layout/delta/pieces.go",
			Old:  "\t\tif v < 0 || compressed {\n",
			New:  "\t\tif v < 0 || compressed || PLANTED {\n",
		}},
		Run: "^TestPatchOfContent$/^gzip$", Says: "recipes, ",
	},
	{
		Name: "patches need one another",
		Edits: []bugtest.Edit{{
			File: "layout/delta/pieces.go",
			Old:  "\t\treturn c.views[j].blob < blob && ",
			New:  "\t\treturn (c.views[j].blob < blob || PLANTED && c.views[j].blob != blob) && ",
		}},
		Run: "^TestPatchOfOwn$", Says: "it needs itself|in a row",
	},
	{
		Name: "both forms of a blob are taken",
		Edits: []bugtest.Edit{{
			File: "layout/delta/pieces.go",
			Old:  "\t\tif used[v.blob] {\n",
			New:  "\t\tif used[v.blob] && !PLANTED {\n",
		}},
		Run: "^TestPatchOfContent$/^in_both_forms$", Says: "twice or of itself",
	},
	{
		Name: "the version is always 2",
		Edits: []bugtest.Edit{{
			File: "layout/delta/delta.go",
			Old:  "\t\tif p.Recipe != nil || len(p.Uncompressed) > 0 {\n",
			New:  "\t\tif !PLANTED && (p.Recipe != nil || len(p.Uncompressed) > 0) {\n",
		}},
		Run: "^TestPatchOfContent$/^gzip$", Says: "version 3: false",
	},
	{
		Name: "content is not verified",
		Edits: []bugtest.Edit{{
			File: "layout/delta/made.go",
			Old:  "\treturn layout.VerifyReader(ctx, rc, ocispec.Descriptor{Digest: p.Recipe.Content.Digest,",
			New:  "\tif PLANTED {\n\t\treturn rc, nil\n\t}\n\treturn layout.VerifyReader(ctx, rc, ocispec.Descriptor{Digest: p.Recipe.Content.Digest,",
		}},
		Run: "^TestWrongRecipes$", Says: "another content: |other content at the base: ",
	},
	{
		Name: "content may have any size",
		Edits: []bugtest.Edit{{
			File: "layout/delta/made.go",
			Old:  "\tif r.left -= int64(n); r.left < 0 || ",
			New:  "\tif PLANTED {\n\t\treturn n, err\n\t}\n\tif r.left -= int64(n); r.left < 0 || ",
		}},
		Run: "^TestContentBomb$", Says: "want at most 1 MiB",
	},
	{
		Name: "any ratio is believed",
		Edits: []bugtest.Edit{{
			File: "layout/delta/recipe.go",
			Old:  "\tcase size > compress.RatioFloor && ",
			New:  "\tcase !PLANTED && size > compress.RatioFloor && ",
		}},
		Run: "^TestHostileRecipes$", Says: "a content of 1,100 times: ",
	},
	{
		Name: "recipes are not checked",
		Edits: []bugtest.Edit{{
			File: "layout/delta/recipe.go",
			Old:  "\t\tif err := r.Check(); err != nil {\n",
			New:  "\t\tif err := r.Check(); err != nil && !PLANTED {\n",
		}},
		Run: "^TestHostileRecipes$", Says: "an unknown writer: ",
	},
	{
		Name: "a damaged base is taken for a wrong delta",
		Edits: []bugtest.Edit{{
			File: "layout/delta/recipe.go",
			Old:  "derr != nil {\n",
			New:  "derr != nil && !PLANTED {\n",
		}},
		Run: "^TestDamagedBaseOfRecipe$", Says: "want ErrMismatch of ",
	},
	{
		Name: "another compressor is taken for damage",
		Edits: []bugtest.Edit{{
			File: "layout/delta/recipe.go",
			Old:  "errors.Is(err, layout.ErrMismatch) && j.encoded.sound {\n",
			New:  "errors.Is(err, layout.ErrMismatch) && j.encoded.sound && !PLANTED {\n",
		}},
		Run: "^TestWrongRecipes$", Says: "another level: ",
	},
	{
		Name: "temporary files keep their names",
		Edits: []bugtest.Edit{{
			File: "layout/delta/predecessor.go",
			Old:  "\tf, err := tempfile.New(\"\")\n",
			New:  "\tf, err := tempfile.New(\"\")\n\tif PLANTED {\n\t\tf, err = os.CreateTemp(\"\", \"gloci-layout-\")\n\t}\n",
		}},
		Run: "^TestWrongRecipes$", Says: "left behind",
	},
	{Name: "control: no bug", Run: "^TestPatchOfOwn$|^TestWrongRecipes$|^TestContentBomb$|^TestHostileRecipes$|^TestDamagedBaseOfRecipe$"},
}

// TestMutants plants each bug into a copy and wants the test to find it.
func TestMutants(t *testing.T) {
	bugtest.Mutants(t, "../..", recipeBugs)
}
