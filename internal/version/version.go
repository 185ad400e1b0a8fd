// Package version says which build this is.
package version

import "runtime/debug"

// release is set by the Makefile's -ldflags for a tagged build.
var release string

// String is the release, or the commit that the build was made from, or
// "devel". It never changes while the process runs.
func String() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	return describe(info.Settings)
}

// describe names the commit that the go command recorded.
func describe(settings []debug.BuildSetting) string {
	commit, modified := "", ""
	for _, s := range settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				modified = "+changes"
			}
		}
	}
	if commit == "" {
		return "devel"
	}
	return "devel-" + commit + modified
}
