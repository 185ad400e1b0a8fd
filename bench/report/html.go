package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"

	"culvert/bench/result"
	"culvert/bench/sample"
)

//go:embed page.html
var pageText string

//go:embed page.css
var pageStyle string

var page = template.Must(template.New("page").Parse(pageText))

// HTML writes a page of charts and tables that needs nothing beside it: no script,
// and nothing from elsewhere.
func HTML(w io.Writer, r *result.Report) error {
	p := newPalette(r)
	v := view{
		Style: template.CSS(pageStyle), //nolint:gosec // the file beside this one
		Title: "Culvert " + r.Version, Facts: facts(r),
		Quiet: Background(r) <= sample.QuietCores, Background: fmt.Sprintf("%.2f", Background(r)),
		Summary: p.summary(r),
	}
	for n := range r.Experiments {
		v.Experiments = append(v.Experiments, p.experiment(&r.Experiments[n]))
	}
	return page.Execute(w, &v)
}

// view is what the template shows.
type view struct {
	Style       template.CSS
	Title       string
	Facts       []fact
	Quiet       bool
	Background  string
	Summary     []card
	Experiments []experimentView
}

// fact is something about the run.
type fact struct{ Name, Text string }

type experimentView struct {
	Name, Title, About string
	Legend             []legendEntry
	Charts             []figure
	Head               []string
	Rows               []tableRowView
	Notes              []string
}

type legendEntry struct {
	Name   string
	Marker template.HTML
}

type figure struct {
	Caption, Detail string
	SVG             template.HTML
}

type tableRowView struct {
	First bool // of its case
	Cells []string
}

// facts are what makes figures comparable, and how far to trust them.
func facts(r *result.Report) []fact {
	s := r.Settings
	return []fact{
		{"Machine", fmt.Sprintf("%d × %s, Linux %s", r.Machine.Cores, r.Machine.Processor, r.Machine.Kernel)},
		{"Run", fmt.Sprintf("%s set, %s, in %.0f min", s.Set, r.Started.UTC().Format("2006-01-02 15:04 UTC"), max(1, r.Seconds/60))},
		{"Rounds", fmt.Sprintf("%d, each load %g s after %g s of warm-up", s.Rounds, s.Seconds, s.WarmUp)},
		{"Background", fmt.Sprintf("%.2f cores were busy before the turns (median)", Background(r))},
	}
}

// experiment draws and tabulates one.
func (p *palette) experiment(e *result.Experiment) experimentView {
	v := experimentView{Name: e.Name, Title: e.Title, About: e.About, Notes: noteLines(e), Charts: p.charts(e)}
	for _, d := range e.Devices() {
		v.Legend = append(v.Legend, p.legend(d))
	}
	v.Head, v.Rows = rowsAndHead(e)
	return v
}

func (p *palette) legend(device string) legendEntry {
	series := p.of(device)
	return legendEntry{device, template.HTML(fmt.Sprintf( //nolint:gosec // numbers only
		`<svg class="k" viewBox="0 0 20 14" aria-hidden="true"><path class="l s%d" d="M0 7L20 7"/><path class="m s%d" d="%s"/></svg>`,
		series, series, markerPath(series, 10, 7, 4.5)))}
}

// charts draws what an experiment is about, then times, ratios and cost.
func (p *palette) charts(e *result.Experiment) (all []figure) {
	m, _ := result.MetricOf(e.Metric)
	if !has(e, m) {
		return nil // all failed, or nothing took part
	}
	add := func(caption, detail string, svg template.HTML) {
		if svg != "" {
			all = append(all, figure{caption, detail, svg})
		}
	}
	values, ratios := p.bars, p.ratios
	if e.Axis != "" {
		values, ratios = p.lines, p.ratioLines
	}
	add(m.Title, direction(m), values(e, m))
	for n := range e.Cases {
		add("Times by percentile: "+e.Cases[n].Name, "further left is better", p.cdf(e, &e.Cases[n]))
	}
	if devices := e.Devices(); len(devices) > 1 {
		detail := "more than 1: " + devices[0] + " is better"
		if m.Lower {
			detail = "less than 1: " + devices[0] + " is better"
		}
		add(devices[0]+" divided by each peer", detail, ratios(e, m))
	}
	if cost, _ := result.MetricOf(result.NanosPacket); e.Axis != "" && m != cost && has(e, cost) {
		add("Processor time of the machine for a packet, ns", direction(cost), p.lines(e, cost))
	}
	return all
}

func direction(m result.Metric) string {
	if m.Lower {
		return "less is better"
	}
	return "more is better"
}

// rowsAndHead turn the terminal's columns into a page's rows.
func rowsAndHead(e *result.Experiment) (head []string, rows []tableRowView) {
	columns := tabulate(e)
	rows = make([]tableRowView, len(columns[0].cells))
	for _, c := range columns {
		head = append(head, c.head)
		for n, cell := range c.cells {
			rows[n].Cells = append(rows[n].Cells, cell)
			rows[n].First = columns[0].cells[n] != ""
		}
	}
	return head, rows
}
