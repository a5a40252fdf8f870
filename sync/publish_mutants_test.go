package sync_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
)

// publishMutants are the ways in which the protocol of publish can be broken,
// each with the test that has to find it.
var publishMutants = []struct {
	name     string
	file     string
	old, new string // old stands once in file
	run      string
	says     string // what the test says then: a regular expression
}{
	{
		name: "nothing is read again", file: "publish_loop.go",
		old: "\t\tif done && !v.lagging && !p.unclear {\n",
		new: "\t\tif done || !done {\n",
		run: "^TestPublishInterleavings$/^two_flavours$", says: "the index has|entries, want",
	},
	{
		name: "the tags move after the index", file: "publish.go",
		old: "\terr = p.moveOwn(ctx)\n\tif err == nil {\n\t\terr = p.converge(ctx)\n\t}\n",
		new: "\terr = p.converge(ctx)\n\tif err == nil {\n\t\terr = p.moveOwn(ctx)\n\t}\n",
		run: "^TestPublishInterleavings$/^two_flavours$", says: "the index has|entries, want",
	},
	{
		name: "what the index held is kept", file: "publish_loop.go",
		old: "\t\tif v.tags[tag] != nil {\n\t\t\tcontinue // it has been here before, and was removed\n\t\t}\n",
		new: "\t\tdelete(v.tags, tag)\n",
		run: "^TestPublishAdopts$", says: "index map",
	},
	{
		name: "equal entries are not sorted", file: "publish_index.go",
		old: "\t\treturn cmp.Or(cmp.Compare(a.digest, b.digest), bytes.Compare(a.raw, b.raw))\n",
		new: "\t\treturn cmp.Compare(1, 1)\n",
		run: "^TestPublishSameBytesOfEqualEntries$", says: "other bytes of the same entries",
	},
	{
		name: "the tag of an entry is not looked up", file: "publish_look.go",
		old: "\treturn v, p.lookUp(ctx, v)\n",
		new: "\treturn v, nil\n",
		run: "^TestPublishLag$", says: "adopted",
	},
	{
		name: "an old answer counts", file: "publish_look.go",
		old: "\t\t\tdesc, lagging = own.seen(desc)\n",
		new: "",
		run: "^TestPublishLag$", says: "lag [0-9]+",
	},
	{
		name: "nobody waits for a late write", file: "publish.go",
		old: "\tif err := p.wait(ctx, lifetime); err != nil {\n\t\treturn err\n\t}\n",
		new: "",
		run: "^TestPublishLateWrite$", says: "flavor 1: the index has",
	},
	{
		name: "foreign entries are not adopted", file: "publish_loop.go",
		old: "\t\tif err := p.adoptAll(ctx, v); err != nil {\n\t\t\treturn err\n\t\t}\n",
		new: "",
		run: "^TestPublishAdopts$", says: "index map",
	},
	{
		name: "tombstones are no tombstones", file: "publish_index.go",
		old: "\t\t\tif t.key != \"\" {\n\t\t\t\tkeys[t.key] = true\n\t\t\t}\n\t\tcase t.isPart && member",
		new: "\t\tcase t.isPart && member",
		run: "^TestPublishReadsAnnotations$", says: "index map",
	},
	{
		name: "nothing is rolled back", file: "publish.go",
		old: "\treturn errors.Join(err, p.rollBack(ctx))\n",
		new: "\treturn err\n",
		run: "^TestPublishInterrupted$", says: "is created|is moved|was not put back",
	},
	{
		name: "the rollback touches what others have moved", file: "publish_tags.go",
		old: "err == nil && now.Digest != o.desc.Digest:\n",
		new: "err == nil && now.Digest == \"\":\n",
		run: "^TestPublishRollsBackOwnOnly$", says: "moves",
	},
	{name: "control: no bug", file: "publish.go", old: "package sync\n", new: "package sync\n", run: "^TestPublishInterleavings$/^two_flavours$|^TestPublishAdopts$|^TestPublishLag$|^TestPublishInterrupted$"},
}

// TestPublishMutants plants each bug into a copy and wants the test to fail.
func TestPublishMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the tests once for each mutant")
	}
	if os.Getenv("GLOCI_MUTANT") != "" {
		t.Skip("inside a mutant")
	}
	for _, m := range publishMutants {
		t.Run(m.name, func(t *testing.T) {
			file, err := filepath.Abs(m.file)
			if err != nil {
				t.Fatal(err)
			}
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(source), m.old); n != 1 {
				t.Fatalf("%s holds the text to be changed %d times, want once: the mutant has to follow the program:\n%s", m.file, n, m.old)
			}
			dir := t.TempDir()
			changed := write(t, dir, m.file, strings.Replace(string(source), m.old, m.new, 1))
			overlay, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
			if err != nil {
				t.Fatal(err)
			}
			args := []string{"test", "-vet=off", "-overlay=" + write(t, dir, "overlay.json", string(overlay)), "-run=" + m.run, "-timeout=3m"}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "-tags" {
						args = append(args, "-tags="+s.Value)
					}
				}
			}
			cmd := exec.CommandContext(t.Context(), "go", append(args, ".")...)
			// The home of this test is empty: the caches of go are the machine's.
			cmd.Env = append(os.Environ(), "GLOCI_MUTANT=1", "CGO_ENABLED=0", "HOME="+realHome)
			out, err := cmd.CombinedOutput()
			found := regexp.MustCompile(".*(" + m.says + ").*").FindString(string(out))
			switch {
			case m.says == "" && err != nil:
				t.Errorf("%s finds a bug where there is none:\n%s", m.run, out)
			case m.says == "":
			case strings.Contains(string(out), "[build failed]"):
				t.Errorf("the mutant does not build:\n%s", out)
			case err == nil:
				t.Errorf("%s does not find it", m.run)
			case found == "":
				t.Errorf("%s does not say %q:\n%s", m.run, m.says, out)
			default:
				t.Logf("found: %.200s", strings.TrimSpace(found))
			}
		})
	}
}
