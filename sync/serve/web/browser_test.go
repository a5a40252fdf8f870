package web_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/gardenlinux/gloci-layout/sync/serve/web"
)

// TestBrowser opens the pages in Chromium: browsertest/test.mjs says what is
// looked at. It is what make page runs, with GLOCI_BROWSER=1; GLOCI_SHOTS names
// the directory of the screenshots, and GLOCI_TIMES=1 wants the time that is
// promised, for a machine that does nothing else.
func TestBrowser(t *testing.T) {
	if os.Getenv("GLOCI_BROWSER") == "" {
		t.Skip("GLOCI_BROWSER is not set: make page")
	}
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("browsertest/node_modules/playwright-core"); err != nil {
		t.Fatal("npm ci in browsertest was not run: make page does it")
	}
	g, hostile := newGarden(t), newHostile(t, hostileTexts)
	s := start(t, web.Repository{Name: "gardenlinux", Source: g}, web.Repository{Name: "hostile", Source: hostile}, web.Repository{Name: "large", Source: newLarge(t, 2000)})
	dir := t.TempDir()
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("report.html", report(t, small(t)))
	write("hostile.html", report(t, hostile))
	write("diff.html", differences(t, hostile, small(t), hostileTexts[0], "small"))

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "test.mjs")
	cmd.Dir = "browsertest"
	cmd.Env = append(os.Environ(), "BASE="+s.URL, "FILES="+dir, "SHOTS="+os.Getenv("GLOCI_SHOTS"), "TIMES="+os.Getenv("GLOCI_TIMES"), "CHROMIUM="+chromium)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}
