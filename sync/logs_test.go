package sync_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	layoutsync "github.com/gardenlinux/gloci-layout/sync"
)

func TestRouteLogs(t *testing.T) {
	out, level, hooks := logrus.StandardLogger().Out, logrus.GetLevel(), logrus.StandardLogger().ReplaceHooks(logrus.LevelHooks{})
	t.Cleanup(func() {
		logrus.SetOutput(out)
		logrus.SetLevel(level)
		logrus.StandardLogger().ReplaceHooks(hooks)
	})
	var log bytes.Buffer
	layoutsync.RouteLogs(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})))
	logrus.Info("chat")
	logrus.Warnf("a %s", "warning")
	if got := log.String(); strings.Contains(got, "chat") || !strings.Contains(got, `level=WARN msg="a warning"`) {
		t.Errorf("logged %q", got)
	}
}
