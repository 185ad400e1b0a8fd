package report

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"html"
	"image"
	"image/draw"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// look is what the script below finds in a page as wide as a phone or a desk's
// screen.
type look struct {
	Width       int      // of the window
	ScrollWidth int      // of what is in it
	Sections    int      // experiments
	Charts      int      // drawn ones, with some height
	Series      []int    // how many colours each experiment's first chart has
	Outside     []string // parts of charts that reach out of them
	Overlaps    []string // labels of one chart that cover each other
	SmallText   float64  // the least height of a chart's label, in pixels
	Scripts     int
	Images      int
	Requests    int      // for what is not in the page
	Cards       int      // of the summary, with some height
	Unlabelled  []string // charts that do not say what they show to those who hear the page
	Colours     []string // of the markers of the first experiment's legend
	Paper       string
	Ink         string
}

// looking runs in the browser: it measures what was drawn.
const looking = `
function look(w) {
  const d = w.document, r = {Width: w.innerWidth, ScrollWidth: d.scrollingElement.scrollWidth,
    Sections: d.querySelectorAll("section").length, Charts: 0, Series: [], Outside: [], Overlaps: [], SmallText: 1e9,
    Scripts: d.scripts.length, Images: d.images.length, Requests: w.performance.getEntriesByType("resource").length,
    Cards: [...d.querySelectorAll(".summary > li")].filter(e => e.getBoundingClientRect().height > 40).length, Unlabelled: []};
  const box = e => e.getBoundingClientRect();
  for (const s of d.querySelectorAll("section")) {
    let first = true;
    for (const svg of s.querySelectorAll("figure svg")) {
      const b = box(svg);
      if (!svg.getAttribute("aria-label")) r.Unlabelled.push(s.id);
      if (b.width > 100 && b.height > 40) r.Charts++;
      const colours = new Set();
      for (const m of svg.querySelectorAll(".m, .b")) colours.add(w.getComputedStyle(m).fill + m.getAttribute("class"));
      if (first) r.Series.push(colours.size);
      first = false;
      for (const e of svg.querySelectorAll("text, path, rect, line")) {
        const x = box(e);
        if (x.left < b.left - 1 || x.right > b.right + 1 || x.top < b.top - 1 || x.bottom > b.bottom + 1)
          r.Outside.push(s.id + ": " + e.tagName + " " + e.textContent);
      }
      const texts = [...svg.querySelectorAll("text")].map(t => [box(t), t.textContent]);
      for (const [i, [x, said]] of texts.entries()) {
        r.SmallText = Math.min(r.SmallText, x.height);
        for (const [y, also] of texts.slice(i + 1))
          if (x.left < y.right - 1 && y.left < x.right - 1 && x.top < y.bottom - 3 && y.top < x.bottom - 3)
            r.Overlaps.push(s.id + ": " + said + " | " + also);
      }
    }
  }
  r.Colours = [...d.querySelectorAll("section:first-of-type .legend .m")].map(m => w.getComputedStyle(m).fill);
  r.Ink = w.getComputedStyle(d.body).color;
  r.Paper = w.getComputedStyle(d.body).backgroundColor;
  return r;
}
window.onload = () => {
  const all = [...document.querySelectorAll("iframe")].map(f => look(f.contentWindow));
  const found = document.createElement("pre");
  found.id = "found"; found.hidden = true;
  found.textContent = JSON.stringify(all);
  document.body.append(found);
  console.log("looked");
};`

// chromium opens a file in a headless Chromium in which all pages are side
// by side, and returns what the file has become, what it looks like, and what the
// browser said. A browser that hangs is killed; it leaves nothing.
func chromium(t *testing.T, file string) (dom, said string, picture image.Image) {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("%v: make deps-browser", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	home := t.TempDir()
	shot := filepath.Join(home, "shot.png")
	cmd := exec.CommandContext(ctx, path,
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
		"--disable-background-networking", "--disable-extensions", "--disable-breakpad", "--user-data-dir="+filepath.Join(home, "profile"),
		"--force-color-profile=srgb", "--force-device-scale-factor=1", fmt.Sprintf("--window-size=%d,%d", windowWidth, windowHeight),
		"--enable-logging=stderr", "--screenshot="+shot, "--dump-dom", "file://"+file)
	cmd.Env = append(os.Environ(), "HOME="+home, "TMPDIR="+home, "XDG_CACHE_HOME="+home, "XDG_CONFIG_HOME="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("chromium: %v\n%s", err, stderr.String())
	}
	// Its helpers may outlive it by a moment, and would write into what is taken away.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	awaitGone(t, home)
	f, err := os.Open(shot)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if picture, err = png.Decode(f); err != nil {
		t.Fatal(err)
	}
	return string(out), stderr.String(), picture
}

// awaitGone waits until no process has the directory among its arguments.
func awaitGone(t *testing.T, dir string) {
	t.Helper()
	for range 100 {
		left := ""
		files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(dir)) {
				left = f
			}
		}
		if left == "" {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("the browser left a process")
}

// pages are the frames of the window: as wide as a phone and as a desk's screen,
// light and dark.
var pages = []struct {
	left, width        int
	scheme, paper, ink string
}{
	{0, phone, "light", "rgb(255, 255, 255)", "rgb(29, 35, 41)"},
	{400, desk, "light", "rgb(255, 255, 255)", "rgb(29, 35, 41)"},
	{1700, phone, "dark", "rgb(20, 24, 28)", "rgb(230, 233, 236)"},
	{2100, desk, "dark", "rgb(20, 24, 28)", "rgb(230, 233, 236)"},
}

const (
	phone, desk  = 375, 1280
	windowWidth  = 2100 + desk
	windowHeight = 2600
)

// TestPageInBrowser opens the page as wide as a phone and as a desk's screen, in
// light and in dark colours, and looks at what Chromium has drawn.
func TestPageInBrowser(t *testing.T) {
	r := example()
	var page bytes.Buffer
	if err := HTML(&page, r); err != nil {
		t.Fatal(err)
	}
	wrapper := "<!doctype html><meta charset=utf-8><body style=margin:0><script>" + looking + "</script>"
	for _, p := range pages {
		wrapper += fmt.Sprintf(`<iframe style="position:absolute;left:%dpx;width:%dpx;height:%dpx;border:0;color-scheme:%s" srcdoc="%s"></iframe>`,
			p.left, p.width, windowHeight, p.scheme, html.EscapeString(page.String()))
	}
	file := filepath.Join(t.TempDir(), "wrapper.html")
	if err := os.WriteFile(file, []byte(wrapper), 0o644); err != nil {
		t.Fatal(err)
	}
	looks, picture := lookAt(t, file)
	if len(looks) != len(pages) {
		t.Fatalf("the browser found %d pages", len(looks))
	}
	for n, p := range pages {
		t.Run(fmt.Sprintf("%s, %d pixels", p.scheme, p.width), func(t *testing.T) {
			l := &looks[n]
			if l.Width != p.width || l.ScrollWidth > l.Width {
				t.Errorf("the window has %d pixels, the page %d", l.Width, l.ScrollWidth)
			}
			if l.Paper != p.paper || l.Ink != p.ink {
				t.Errorf("paper and ink are %s and %s, want %s and %s", l.Paper, l.Ink, p.paper, p.ink)
			}
			checkLook(t, l, len(r.Experiments))
			checkPixels(t, l, picture, image.Rect(p.left, 0, p.left+p.width, windowHeight))
		})
	}
}

// lookAt opens the file and returns what the script in it found. The browser must
// have nothing to say about it except what the script says itself.
func lookAt(t *testing.T, file string) (looks []look, picture image.Image) {
	t.Helper()
	dom, said, picture := chromium(t, file)
	_, found, _ := strings.Cut(dom, `<pre id="found" hidden="">`)
	found, _, _ = strings.Cut(found, "</pre>")
	if err := json.Unmarshal([]byte(html.UnescapeString(found)), &looks); err != nil {
		t.Fatalf("%v:\n%.2000s", err, dom)
	}
	for line := range strings.Lines(said) {
		if strings.Contains(line, "CONSOLE") && !strings.Contains(line, `"looked"`) {
			t.Errorf("the browser says %s", line)
		}
	}
	if !strings.Contains(said, `"looked"`) {
		t.Errorf("nothing is known of what the browser says:\n%s", said)
	}
	return looks, picture
}

// checkPixels: every device's colour is really in the picture, in as many pixels
// as some markers have.
func checkPixels(t *testing.T, l *look, picture image.Image, part image.Rectangle) {
	t.Helper()
	count := make(map[string]int)
	rgba := image.NewRGBA(part)
	draw.Draw(rgba, part, picture, part.Min, draw.Src)
	colours := make(map[[3]byte]string)
	for _, c := range l.Colours {
		var rgb [3]byte
		if _, err := fmt.Sscanf(c, "rgb(%d, %d, %d)", &rgb[0], &rgb[1], &rgb[2]); err != nil {
			t.Fatalf("colour %s: %v", c, err)
		}
		colours[rgb] = c
	}
	for n := 0; n < len(rgba.Pix); n += 4 {
		if p := rgba.Pix[n : n+3]; p[0] != p[1] || p[1] != p[2] { // no grey
			if c, ok := colours[[3]byte(p)]; ok {
				count[c]++
			}
		}
	}
	different := make(map[string]bool)
	for _, c := range l.Colours {
		different[c] = true
		if count[c] < 300 {
			t.Errorf("the colour %s is in %d of them", c, count[c])
		}
	}
	if len(different) != 5 {
		t.Errorf("five devices have the colours %v", l.Colours)
	}
}

func checkLook(t *testing.T, l *look, experiments int) {
	t.Helper()
	if l.Sections != experiments || l.Cards != experiments || l.Scripts != 0 || l.Images != 0 || l.Requests != 0 || len(l.Unlabelled) > 0 {
		t.Errorf("%d sections and %d cards of %d experiments, %d scripts, %d images, %d requests, charts that say nothing: %v",
			l.Sections, l.Cards, experiments, l.Scripts, l.Images, l.Requests, l.Unlabelled)
	}
	// sizes and flows have throughput, ratios and cost; lanes, tcp and hostile throughput and
	// ratios; latency its own, times and ratios.
	if want := 2*3 + 3*2 + 3; l.Charts != want {
		t.Errorf("%d charts, want %d", l.Charts, want)
	}
	if want := "[5 2 6 4 3 2]"; fmt.Sprint(l.Series) != want {
		t.Errorf("the first charts have %v series, want %s", l.Series, want)
	}
	if len(l.Outside) > 0 {
		t.Errorf("out of the charts reach %q", l.Outside)
	}
	if len(l.Overlaps) > 0 {
		t.Errorf("these cover each other: %q", l.Overlaps)
	}
	if l.SmallText < 11 {
		t.Errorf("a label is %.1f pixels high", l.SmallText)
	}
}

// TestPageStandsAlone: nothing in it leads elsewhere, and what a report says is
// text.
func TestPageStandsAlone(t *testing.T) {
	var b bytes.Buffer
	if err := HTML(&b, example()); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"http:", "https:", "<script", "<img", "url(", "@import", " src=\""} {
		if strings.Contains(b.String(), bad) {
			t.Errorf("the page has %q", bad)
		}
	}
}
