// Command gloci-layout builds, packs, checks and publishes OCI image layouts.
//
// Each command has a file of its own that holds its flags and its output; what
// it does is in the packages layout and sync. The command line is described in
// docs/cli.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/cmd/gloci-layout/internal/cmdline"
	_ "github.com/gardenlinux/gloci-layout/cmd/gloci-layout/internal/firstheap" // its memory is there at once
	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
)

func main() {
	delayCollection()
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// delayCollection lets the heap grow to 16 MiB before it is collected first, in
// place of 4, unless GOGC says otherwise. Of those 4 the packages that are linked
// in have taken most before main, so that short commands spent a sixth of their
// time on a collection that freed nothing. What needs more memory is collected as
// ever.
func delayCollection() {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(400)
	collected := new([16]byte) // not so small that it shares its memory with others
	runtime.AddCleanup(collected, func(percent int) { debug.SetGCPercent(percent) }, 100)
}

// run runs one command line and returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	// Without this a closed stdout kills the process before it can clean up.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal kills

	e := &env{stdout: &output{w: stdout}, stderr: stderr}
	err := e.run(ctx, args)
	e.stdout.flush()
	if err == nil {
		err = e.stdout.err
	}
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errAnswerIsNo):
		return exitNo
	case errors.Is(err, syscall.EPIPE) && e.stdout.err != nil:
		return exitFailed // whoever read has seen enough
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		err = interrupted(err)
	}
	e.report(err)
	return exitStatus(err)
}

// interrupted keeps the hint of what a signal has ended, if there is one, and how
// the tags stand.
func interrupted(err error) error {
	end := errInterrupted
	var pushed *outcomeError
	if errors.As(err, &pushed) {
		end = &outcomeError{errInterrupted, pushed.outcome}
	}
	if h := hint(err); h != "" {
		return layout.WithHint(end, h)
	}
	return end
}

func (e *env) run(ctx context.Context, args []string) error {
	e.setup()
	app := newApp(e)
	line, err := cmdline.Order(app, args)
	switch {
	case err != nil:
		return err
	case line.Help:
		return cmdline.WriteHelp(e.stdout, app, line.Path)
	case line.Version:
		return runVersion(e)
	}
	return app.RunContext(ctx, line.Args)
}

const appDescription = `A layout is a directory that holds container images and other artifacts as the OCI image layout specification has it. No daemon is needed and, but for sync, pull and publish, no registry.

Operands may be given before or after flags; -- ends flags. Results go to stdout; progress, warnings and errors to stderr.`

func newApp(e *env) *cli.App {
	app := &cli.App{
		Name:        "gloci-layout",
		Usage:       "build, pack, check and publish OCI image layouts",
		Description: appDescription,
		Flags:       e.globalFlags(),
		Commands: []*cli.Command{
			newInitCommand(e),
			newAddCommand(e),
			newTagCommand(e),
			newUntagCommand(e),
			newRmCommand(e),
			newAttachCommand(e),
			newDetachCommand(e),
			newReplaceCommand(e),
			newRecompressCommand(e),
			newAnnotateCommand(e),
			newReferrersCommand(e),
			newMergeCommand(e),
			newIndexCommand(e),
			newLsCommand(e),
			newTreeCommand(e),
			newInspectCommand(e),
			newCatCommand(e),
			newCopyCommand(e),
			newExtractCommand(e),
			newDiffCommand(e),
			newVerifyCommand(e),
			newResolveCommand(e),
			newLintCommand(e),
			newReportCommand(e),
			newGCCommand(e),
			newPackCommand(e),
			newUnpackCommand(e),
			newInventoryCommand(e),
			newSyncCommand(e),
			newPullCommand(e),
			newPublishCommand(e),
			newServeCommand(e),
			newCompletionCommand(e),
			newManCommand(e),
			newVersionCommand(e),
			newCompleteCommand(e),
		},
		Writer:    e.stdout,
		ErrWriter: e.stderr,
		// Help is rendered by cmdline, and cli must not end the process, take
		// commas in annotations for separators, or print usage on stdout.
		HideHelp:                  true,
		HideVersion:               true,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              usageError,
		DisableSliceFlagSeparator: true,
		Before: func(*cli.Context) error {
			e.setup()
			layoutsync.RouteLogs(e.log)
			return nil
		},
	}
	prepare(app.Commands)
	return app
}

// prepare sets what all commands share and cli does not inherit.
func prepare(commands []*cli.Command) {
	for _, c := range commands {
		c.HideHelp = true
		c.OnUsageError = usageError
		if c.Before == nil && len(c.Subcommands) == 0 {
			c.Before = operands(strings.Fields(c.ArgsUsage))
		}
		prepare(c.Subcommands)
	}
}

// operands checks their number against names: "LAYOUT", "[NAME]", "NAME...",
// "[NAME...]".
func operands(names []string) cli.BeforeFunc {
	least, most := 0, 0
	for _, n := range names {
		if !strings.HasPrefix(n, "[") {
			least++
		}
		if strings.HasSuffix(strings.TrimSuffix(n, "]"), "...") {
			most = -1
		} else if most >= 0 {
			most++
		}
	}
	return func(c *cli.Context) error {
		n := c.NArg()
		if n >= least && (most < 0 || n <= most) {
			for i, operand := range c.Args().Slice() {
				if operand == "" {
					return usagef(c, "operand %d is empty", i+1)
				}
			}
			return nil
		}
		want := "no operands"
		if len(names) > 0 {
			want = strings.Join(names, " ")
		}
		return usagef(c, "%d operands given, want %s", n, want)
	}
}

// usageError turns what cli says about a value into a UsageError.
func usageError(c *cli.Context, err error, _ bool) error {
	return usagef(c, "%s", strings.Replace(err.Error(), " for flag -", " for flag --", 1))
}

func usagef(c *cli.Context, format string, args ...any) error {
	name := ""
	for _, a := range c.Lineage() {
		if a.Command != nil && a.Command.Name != "" && a.Command.Name != c.App.Name {
			name = strings.TrimSpace(a.Command.Name + " " + name)
		}
	}
	return &cmdline.UsageError{
		Command: name, Msg: fmt.Sprintf(format, args...),
		Hint: strings.TrimSpace(c.App.Name+" "+name) + " --help shows how to use it",
	}
}
