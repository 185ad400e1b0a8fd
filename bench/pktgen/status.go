package pktgen

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
)

// status is what a device's file says.
type status struct {
	// sent are the frames that the device took, errors those it refused.
	sent, errors uint64
	// result is what came of the last command or run: "OK: ...", or empty.
	result string
}

// ok says whether the last command or run succeeded.
func (s *status) ok() bool { return strings.HasPrefix(s.result, "OK") }

// ended says whether the result is that of a run, such as
// "OK: 3010726(c3009157+d1569) usec, 100000 (60byte,0frags)".
func (s *status) ended() bool { return s.ok() && strings.Contains(s.result, " usec, ") }

// parseStatus reads a device's file, as pktgen_if_show of net/core/pktgen.c
// writes it.
func parseStatus(text string) (s status, err error) {
	found := false
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if rest, ok := strings.CutPrefix(line, "pkts-sofar:"); ok {
			fields := strings.Fields(rest)
			if len(fields) != 3 || fields[1] != "errors:" {
				return s, fmt.Errorf("pktgen: cannot read %q", line)
			}
			if s.sent, err = strconv.ParseUint(fields[0], 10, 64); err != nil {
				return s, fmt.Errorf("pktgen: number of frames: %w", err)
			}
			if s.errors, err = strconv.ParseUint(fields[2], 10, 64); err != nil {
				return s, fmt.Errorf("pktgen: number of errors: %w", err)
			}
			found = true
		}
		if rest, ok := strings.CutPrefix(line, "Result:"); ok {
			s.result = strings.TrimSpace(rest)
		}
	}
	if err := lines.Err(); err != nil {
		return s, fmt.Errorf("pktgen: reading the device's file: %w", err)
	}
	if !found {
		return s, fmt.Errorf("pktgen: no number of frames in %q", text)
	}
	return s, nil
}
