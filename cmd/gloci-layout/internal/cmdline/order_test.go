package cmdline_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"
	"pgregory.net/rapid"

	"github.com/gardenlinux/gloci-layout/cmd/gloci-layout/internal/cmdline"
)

// testApp has what makes command lines hard: nested commands, flags of all
// kinds, and a flag --version beside that of the program.
func testApp() *cli.App {
	return &cli.App{
		Name: "prog",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "say less"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "say more"},
		},
		Commands: []*cli.Command{
			{Name: "add", Usage: "add things", Subcommands: []*cli.Command{
				{Name: "image", Usage: "add an image", ArgsUsage: "LAYOUT SOURCE...", Flags: []cli.Flag{
					&cli.StringFlag{Name: "ref", Usage: "call it `NAME`"},
					&cli.StringSliceFlag{Name: "annotation", Usage: "annotate it with `K=V`"},
					&cli.BoolFlag{Name: "all", Usage: "take all"},
				}},
				{Name: "flavor", Usage: "add a flavor", Flags: []cli.Flag{&cli.StringFlag{Name: "version", Usage: "of `V`"}}},
			}},
			{Name: "verify", Usage: "check", ArgsUsage: "LAYOUT", Flags: []cli.Flag{
				&cli.IntFlag{Name: "jobs", Aliases: []string{"j"}, Usage: "run `N` at once", Value: 4},
				&cli.BoolFlag{Name: "tls-verify", Usage: "be strict"},
			}},
			{Name: "__hidden", Hidden: true},
		},
	}
}

func TestOrder(t *testing.T) {
	for _, tt := range []struct {
		in, want string
	}{
		{"verify dir", "verify -- dir"},
		{"verify dir --jobs 2", "verify --jobs=2 -- dir"},
		{"verify dir -j 2", "verify --jobs=2 -- dir"},
		{"verify -j=2 dir", "verify --jobs=2 -- dir"},
		{"--jobs 2 verify dir", "verify --jobs=2 -- dir"},
		{"verify dir --quiet", "--quiet verify -- dir"},
		{"-qv verify dir", "--quiet --verbose verify -- dir"},
		{"verify -q=false dir", "--quiet=false verify -- dir"},
		{"verify --tls-verify dir", "verify --tls-verify -- dir"},
		{"verify --tls-verify=false dir", "verify --tls-verify=false -- dir"},
		{"verify", "verify"},
		{"verify -", "verify -- -"},
		{"verify -- --jobs -q --", "verify -- --jobs -q --"},
		{"verify --jobs -- dir", "verify --jobs=-- -- dir"}, // the value that was written
		{"add image l s --ref a --annotation k=a,b --annotation=x=y --all t", "add image --ref=a --annotation=k=a,b --annotation=x=y --all -- l s t"},
		{"add --ref a image l s", "add image --ref=a -- l s"},
		{"add image --ref= l s", "add image --ref= -- l s"},
		{"add image verify add", "add image -- verify add"}, // operands that are words of commands
		{"verify help", "verify -- help"},
		{"add flavor --version 1 d", "add flavor --version=1 -- d"},
		{"add --version 1 flavor d", "add flavor --version=1 -- d"},
		{"__hidden", "__hidden"},
	} {
		line, err := cmdline.Order(testApp(), strings.Fields("prog "+tt.in))
		if err != nil {
			t.Errorf("Order(%q): %v", tt.in, err)
			continue
		}
		if diff := cmp.Diff(strings.Fields("prog "+tt.want), line.Args); diff != "" {
			t.Errorf("Order(%q) (-want +got):\n%s", tt.in, diff)
		}
	}
}

func TestOrderHelp(t *testing.T) {
	for _, tt := range []struct{ in, path string }{
		{"--help", ""},
		{"-h", ""},
		{"help", ""},
		{"help add image", "add image"},
		{"add image --help", "add image"},
		{"add -h", "add"},
		{"verify -qh x y z", "verify"},
		{"--help verify", "verify"},
	} {
		line, err := cmdline.Order(testApp(), strings.Fields("prog "+tt.in))
		if err != nil || !line.Help || cmdline.Name(line.Path) != tt.path {
			t.Errorf("Order(%q) = help %v of %q, error %v, want of %q", tt.in, line.Help, cmdline.Name(line.Path), err, tt.path)
		}
	}
	for _, in := range []string{"--version", "verify --version", "--version add flavor"} {
		if line, err := cmdline.Order(testApp(), strings.Fields("prog "+in)); err != nil || !line.Version {
			t.Errorf("Order(%q) asks for no version (%v)", in, err)
		}
	}
}

func TestOrderErrors(t *testing.T) {
	for _, tt := range []struct{ in, want, hint string }{
		{"", "no command given", "prog --help lists the commands"},
		{"verfy x", `unknown command "verfy"`, "did you mean verify?"},
		{"add iamge x", `add: unknown command "iamge"`, "did you mean image?"},
		{"zzz", `unknown command "zzz"`, "prog --help lists the commands"},
		{"hidden", `unknown command "hidden"`, "prog --help lists the commands"},
		{"-- verify", `"verify" stands after --, where only operands may stand`, ""},
		{"add", "add: one of image, flavor must follow", ""},
		{"verify --job 3 x", "verify: unknown flag --job", "did you mean --jobs?"},
		{"verify --zzz x", "verify: unknown flag --zzz", "prog verify --help lists the flags"},
		{"verify -jobs 3 x", "verify: unknown flag -jobs", "did you mean --jobs?"},
		{"verify --j 3 x", "verify: unknown flag --j", ""},
		{"verify --ref x", "verify: unknown flag --ref", ""},
		{"--ref x verify y", "verify: unknown flag --ref", ""},
		{"verify x --jobs", "verify: flag --jobs needs a value", ""},
		{"verify -qx", "verify: unknown flag -qx", ""},
		{"--zzz verify x", "unknown flag --zzz", "prog --help lists the flags"},
	} {
		_, err := cmdline.Order(testApp(), strings.Fields("prog "+tt.in))
		var usage *cmdline.UsageError
		if !errors.As(err, &usage) {
			t.Errorf("Order(%q): error %v, want a UsageError", tt.in, err)
			continue
		}
		if err.Error() != tt.want || tt.hint != "" && usage.Hint != tt.hint {
			t.Errorf("Order(%q): %q, hint %q; want %q, hint %q", tt.in, err, usage.Hint, tt.want, tt.hint)
		}
	}
}

// Wherever flags stand between the words of a command and its operands, the
// result is the same, and urfave/cli reads from it what was meant.
func TestOrderAnywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		operands := rapid.SliceOfN(rapid.StringMatching(`[a-z./:@-]{1,6}`).Filter(func(s string) bool { return s == "-" || s[0] != '-' }), 1, 4).Draw(t, "operands")
		ref := rapid.StringMatching(`[-a-z=,]{1,5}`).Draw(t, "ref")
		quiet := rapid.Bool().Draw(t, "quiet")
		pieces := [][]string{{"--ref", ref}}
		if quiet {
			pieces = append(pieces, []string{"-q"})
		}
		for _, o := range operands {
			pieces = append(pieces, []string{o})
		}
		pieces = rapid.Permutation(pieces).Draw(t, "pieces")
		var want []string // operands in the order in which they now stand
		args := []string{"prog", "add", "image"}
		for _, p := range pieces {
			args = append(args, p...)
			if len(p) == 1 && p[0] != "-q" {
				want = append(want, p[0])
			}
		}
		app := testApp()
		line, err := cmdline.Order(app, args)
		if err != nil {
			t.Fatalf("Order(%q): %v", args, err)
		}
		ran := false
		app.HideHelp = true
		app.DisableSliceFlagSeparator = true
		image := app.Commands[0].Subcommands[0]
		app.Commands[0].HideHelp, image.HideHelp = true, true
		image.Action = func(c *cli.Context) error {
			ran = true
			if got := c.Args().Slice(); !slices.Equal(got, want) || c.String("ref") != ref || c.Bool("quiet") != quiet {
				t.Fatalf("%q: operands %q, ref %q, quiet %v; want %q, %q, %v", args, got, c.String("ref"), c.Bool("quiet"), want, ref, quiet)
			}
			return nil
		}
		if err := app.Run(line.Args); err != nil || !ran {
			t.Fatalf("%q: %v", line.Args, err)
		}
	})
}

func FuzzOrder(f *testing.F) {
	for _, seed := range []string{"verify x --jobs 2", "add image -- -x", "-qv help add", "--ref=", "verify -j", "- -- --"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		args := append([]string{"prog"}, strings.Split(in, " ")...)
		line, err := cmdline.Order(testApp(), args)
		var usage *cmdline.UsageError
		if err != nil && !errors.As(err, &usage) {
			t.Fatalf("Order(%q): %v is no UsageError", args, err)
		}
		if err != nil || line.Help || line.Version {
			return
		}
		again, err := cmdline.Order(testApp(), line.Args)
		if err != nil || !slices.Equal(again.Args, line.Args) {
			t.Fatalf("Order(%q) = %q, ordered again %q, %v", args, line.Args, again.Args, err)
		}
	})
}

func TestSuggest(t *testing.T) {
	names := []string{"verify", "version", "init", "tag", "untag", "gc", "ls"}
	for word, want := range map[string]string{
		"verfy": "verify", "evrify": "verify", "vresion": "version", "inti": "init", "tga": "tag", "sl": "ls", "unpack": "", "x": "", "": "",
	} {
		if got := cmdline.Suggest(word, names); got != want {
			t.Errorf("Suggest(%q) = %q, want %q", word, got, want)
		}
	}
}
