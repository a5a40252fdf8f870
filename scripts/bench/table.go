package main

import (
	"fmt"
	"runtime"
	"strings"
	"time"
)

// printf prints a part of the report. An error stays in b.outErr: what was
// measured for minutes must not end half-way without a word.
func (b *bench) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(b.out, format, args...); err != nil && b.outErr == nil {
		b.outErr = err
	}
}

// table prints what contenders needed. The last column is the median of the
// first divided by that of the row.
func (b *bench) table(title string, contenders ...*contender) {
	width := 0
	for _, c := range contenders {
		width = max(width, len(c.name))
	}
	b.printf("\n%s\n", title)
	b.printf("  %-*s  %9s  %9s  %9s  %9s  %9s  %2s  %s\n", width, "", "median", "min", "max", "CPU", "max RSS", "n", "first / this")
	for _, c := range contenders {
		if c.missing != "" {
			b.printf("  %-*s  not measured: %s\n", width, c.name, c.missing)
			continue
		}
		least, most := c.spread()
		b.printf("  %-*s  %9s  %9s  %9s  %9s  %9s  %2d  %s\n", width, c.name, seconds(c.median()), seconds(least), seconds(most),
			seconds(c.medianCPU()), bytesText(c.rss()), len(c.samples), ratioText(contenders[0], c))
	}
	if b.elapsed > 0 {
		share := max(0, b.others.Seconds()) / (b.elapsed.Seconds() * float64(runtime.NumCPU()))
		b.printf("  meanwhile everything else on the machine took %.0f %% of the processors\n", 100*share)
	}
}

// ratio of the medians; 0 if one was not measured.
func ratio(a, b *contender) float64 {
	if b.median() == 0 {
		return 0
	}
	return float64(a.median()) / float64(b.median())
}

func ratioText(a, b *contender) string {
	if r := ratio(a, b); r > 0 {
		return fmt.Sprintf("%.3g", r)
	}
	return "-"
}

// goal notes whether figure is at most limit. A figure of 0 was not measured.
func (b *bench) goal(what string, figure, limit float64, text string) {
	verdict := "held"
	switch {
	case figure == 0:
		verdict, text = "not measured", "-"
	case figure > limit:
		verdict = "missed"
		b.missed++
	}
	b.goals = append(b.goals, fmt.Sprintf("%s: %s (%s)", what, verdict, text))
}

func (b *bench) goalRatio(what string, a, c *contender, limit float64) {
	r := ratio(a, c)
	b.goal(fmt.Sprintf("%s at most %.3g", what, limit), r, limit, fmt.Sprintf("%.2f", r))
}

func (b *bench) goalTime(what string, c *contender, limit time.Duration) {
	b.goal(fmt.Sprintf("%s at most %s", what, seconds(limit)), float64(c.median()), float64(limit), seconds(c.median()))
}

// seconds in three digits.
func seconds(d time.Duration) string {
	switch s := d.Seconds(); {
	case s < 0.9995: // what is more rounds to 1000 ms
		return fmt.Sprintf("%.3g ms", s*1000)
	case s < 100:
		return fmt.Sprintf("%.3g s", s)
	default:
		return fmt.Sprintf("%.0f s", s)
	}
}

func bytesText(n int64) string {
	switch {
	case n >= 1<<30 && n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<20:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/(1<<20)), ".0") + " MiB"
	default:
		return fmt.Sprintf("%d KiB", n>>10)
	}
}
