package sync

import (
	"io"
	"log/slog"

	"github.com/sirupsen/logrus"
)

// RouteLogs sends what containers/image logs, by way of the global logger of
// logrus, to logger, and nothing to stderr. It changes the whole process: it is
// for main. The last call counts.
func RouteLogs(logger *slog.Logger) {
	logrus.SetOutput(io.Discard)
	logrus.SetLevel(logrus.InfoLevel)
	logrus.StandardLogger().ReplaceHooks(logrus.LevelHooks{})
	logrus.AddHook(logHook{logger})
}

// A logHook hands records of logrus on.
type logHook struct{ logger *slog.Logger }

func (logHook) Levels() []logrus.Level { return logrus.AllLevels }

func (h logHook) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug // the library's "info" is chat
	switch {
	case e.Level <= logrus.ErrorLevel:
		level = slog.LevelError
	case e.Level == logrus.WarnLevel:
		level = slog.LevelWarn
	}
	h.logger.Log(e.Context, level, e.Message)
	return nil
}
