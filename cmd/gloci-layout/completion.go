package main

import (
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/cmd/gloci-layout/internal/cmdline"
	"github.com/gardenlinux/gloci-layout/sync/serve"
)

func newCompletionCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print what makes a shell complete command lines", ArgsUsage: "SHELL",
		Description: "SHELL is " + strings.Join(cmdline.Shells, ", ") + ". For example:\n\n" +
			"  source <(gloci-layout completion bash)",
		Action: func(c *cli.Context) error {
			script, ok := cmdline.CompletionScript(c.App, c.Args().First())
			if !ok {
				return usagef(c, "shell %q: want one of %s", c.Args().First(), strings.Join(cmdline.Shells, ", "))
			}
			_, err := io.WriteString(e.stdout, script)
			return err
		},
	}
}

// The scripts of newCompletionCommand call this one.
func newCompleteCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "__complete", Hidden: true, ArgsUsage: "[WORD...]",
		Before: func(*cli.Context) error { return nil }, // the last word may be empty
		Action: func(c *cli.Context) error {
			for _, line := range cmdline.Complete(c.App, c.Args().Slice(), fixedValues) {
				if _, err := io.WriteString(e.stdout, line+"\n"); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// fixedValues returns what a flag, or the first operand of a command, may be,
// where that is a short list.
func fixedValues(name string) []string {
	switch name {
	case "completion":
		return cmdline.Shells
	case "compress", "to":
		return []string{"none", "gzip", "zstd"}
	case "unknown-suffix":
		return []string{"error", "octet-stream", "skip"}
	case "as":
		return append([]string{"all"}, consumerNames()...)
	case "operation":
		return []string{"extract", "copy"}
	case "disable":
		return lintRuleNames()
	case "attestations":
		return []string{"skip", "include"}
	case "mode":
		return modeNames
	case "on-conflict":
		return []string{"identical-ok", "error", "first", "last"}
	case "symlinks":
		return []string{"error", "skip", "keep"}
	case "special":
		return []string{"error", "skip"}
	case "print-mirror-config":
		return serve.MirrorKinds
	case "log-format":
		return []string{"text", "json"}
	case "format":
		return []string{"text", "markdown", "html"}
	case "platform":
		return []string{"linux/amd64", "linux/arm64"}
	}
	return nil
}
