package publish_test

import (
	"testing"

	"github.com/gardenlinux/gloci-layout/layout/bugtest"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
)

// publishBugs are the ways in which the protocol of publish can be broken, each
// with the test that has to find it.
var publishBugs = []bugtest.Bug{
	{
		Name: "nothing is read again",
		Edits: []bugtest.Edit{{
			File: "sync/publish/loop.go",
			Old:  "\t\tif done && !v.lagging && !p.unclear {\n",
			New:  "\t\tif PLANTED || done && !v.lagging && !p.unclear {\n",
		}},
		Run: "^TestPublishInterleavings$/^two_flavours$", Says: "the index has|entries, want",
	},
	{
		Name: "the tags move after the index",
		Edits: []bugtest.Edit{{
			File: "sync/publish/publish.go",
			Old:  "\terr = p.moveOwn(ctx)\n\tif err == nil {\n\t\terr = p.converge(ctx)\n\t}\n",
			New: "\tfirst, second := p.moveOwn, p.converge\n\tif PLANTED {\n\t\tfirst, second = second, first\n\t}\n" +
				"\terr = first(ctx)\n\tif err == nil {\n\t\terr = second(ctx)\n\t}\n",
		}},
		Run: "^TestPublishInterleavings$/^two_flavours$", Says: "the index has|entries, want",
	},
	{
		Name: "what the index held is kept",
		Edits: []bugtest.Edit{{
			File: "sync/publish/loop.go",
			Old:  "\t\tif v.tags[tag] != nil {\n\t\t\tcontinue // it has been here before, and was removed\n\t\t}\n",
			New:  "\t\tif PLANTED {\n\t\t\tdelete(v.tags, tag)\n\t\t} else if v.tags[tag] != nil {\n\t\t\tcontinue\n\t\t}\n",
		}},
		Run: "^TestPublishAdopts$", Says: "index map",
	},
	{
		Name: "equal entries are not sorted",
		Edits: []bugtest.Edit{{
			File: "sync/publish/index.go",
			Old:  "\t\treturn cmp.Or(cmp.Compare(a.digest, b.digest), bytes.Compare(a.raw, b.raw))\n",
			New:  "\t\tif PLANTED {\n\t\t\treturn 0\n\t\t}\n\t\treturn cmp.Or(cmp.Compare(a.digest, b.digest), bytes.Compare(a.raw, b.raw))\n",
		}},
		Run: "^TestPublishSameBytesOfEqualEntries$", Says: "other bytes of the same entries",
	},
	{
		Name: "the tag of an entry is not looked up",
		Edits: []bugtest.Edit{{
			File: "sync/publish/look.go",
			Old:  "\treturn v, p.lookUp(ctx, v)\n",
			New:  "\tif PLANTED {\n\t\treturn v, nil\n\t}\n\treturn v, p.lookUp(ctx, v)\n",
		}},
		Run: "^TestPublishLag$", Says: "adopted",
	},
	{
		Name: "an old answer counts",
		Edits: []bugtest.Edit{{
			File: "sync/publish/look.go",
			Old:  "\t\t\tdesc, lagging = own.seen(desc)\n",
			New:  "\t\t\tif !PLANTED {\n\t\t\t\tdesc, lagging = own.seen(desc)\n\t\t\t}\n",
		}},
		Run: "^TestPublishLag$", Says: "lag [0-9]+",
	},
	{
		Name: "nobody waits for a late write",
		Edits: []bugtest.Edit{{
			File: "sync/publish/publish.go",
			Old:  "\tif err := p.wait(ctx, lifetime); err != nil {\n\t\treturn err\n\t}\n",
			New:  "\tif PLANTED {\n\t} else if err := p.wait(ctx, lifetime); err != nil {\n\t\treturn err\n\t}\n",
		}},
		Run: "^TestPublishLateWrite$", Says: "flavor 1: the index has",
	},
	{
		Name: "foreign entries are not adopted",
		Edits: []bugtest.Edit{{
			File: "sync/publish/loop.go",
			Old:  "\t\tif err := p.adoptAll(ctx, v); err != nil {\n\t\t\treturn err\n\t\t}\n",
			New:  "\t\tif PLANTED {\n\t\t} else if err := p.adoptAll(ctx, v); err != nil {\n\t\t\treturn err\n\t\t}\n",
		}},
		Run: "^TestPublishAdopts$", Says: "index map",
	},
	{
		Name: "tombstones are no tombstones",
		Edits: []bugtest.Edit{{
			File: "sync/publish/index.go",
			Old:  "\t\t\tif t.key != \"\" {\n\t\t\t\tkeys[t.key] = true\n\t\t\t}\n\t\tcase t.isPart && member",
			New:  "\t\t\tif t.key != \"\" && !PLANTED {\n\t\t\t\tkeys[t.key] = true\n\t\t\t}\n\t\tcase t.isPart && member",
		}},
		Run: "^TestPublishReadsAnnotations$", Says: "index map",
	},
	{
		Name: "nothing is rolled back",
		Edits: []bugtest.Edit{{
			File: "sync/publish/publish.go",
			Old:  "\treturn errors.Join(err, p.rollBack(ctx))\n",
			New:  "\tif PLANTED {\n\t\treturn err\n\t}\n\treturn errors.Join(err, p.rollBack(ctx))\n",
		}},
		Run: "^TestPublishInterrupted$", Says: "is created|is moved|was not put back",
	},
	{
		Name: "the rollback touches what others have moved",
		Edits: []bugtest.Edit{{
			File: "sync/publish/tags.go",
			Old:  "err == nil && now.Digest != o.desc.Digest:\n",
			New:  "err == nil && now.Digest != o.desc.Digest && (!PLANTED || now.Digest == \"\"):\n",
		}},
		Run: "^TestPublishRollsBackOwnOnly$", Says: "moves",
	},
	{Name: "control: no bug", Run: "^TestPublishInterleavings$/^two_flavours$|^TestPublishAdopts$|^TestPublishLag$|^TestPublishInterrupted$"},
}

// TestPublishMutants plants each bug into a copy and wants the test to find it.
func TestPublishMutants(t *testing.T) {
	// The home of this test is empty: the caches of go are the machine's.
	bugtest.Mutants(t, "../..", publishBugs, "HOME="+pushtest.RealHome)
}
