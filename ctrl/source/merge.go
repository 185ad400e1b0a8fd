package source

import (
	"slices"
	"strings"
)

// sorted is the files in the order of their names.
func (s *scanner) sorted() []*file {
	out := make([]*file, 0, len(s.files))
	for _, f := range s.files {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b *file) int { return strings.Compare(a.name, b.name) })
	return out
}

// settleClashes decides which files' new content takes effect and reports
// whether anything changed. No object may be in force twice. Of two files that
// have the same one, the one that was changed goes back to its last good
// content; if both were, the one whose name comes later. What is in force has
// no object twice, so that going back comes to an end.
func settleClashes(files []*file) (changed bool) {
	choice := make([]*manifest, len(files))
	for i, f := range files {
		f.clash = nil
		choice[i] = f.parsed
		if f.parsed == nil {
			choice[i] = f.good
		}
	}
	for {
		a, b, first, second := findClash(files, choice)
		if second == nil {
			break
		}
		// Blame b, the later file, unless only a is new.
		loser, theirs, other := b, second, first
		if choice[b] == files[b].good {
			loser, theirs, other = a, first, second
		}
		files[loser].clash = alsoIn(*theirs, other.place)
		if choice[loser] == files[loser].good {
			choice[loser] = nil
		} else {
			choice[loser] = files[loser].good
		}
	}
	for i, f := range files {
		if choice[i] != f.good {
			f.good, changed = choice[i], true
		}
	}
	return changed
}

// findClash finds an object that two files have: files a and b, in the order of
// their names, and theirs of it. Without one, the objects are nil.
func findClash(files []*file, choice []*manifest) (a, b int, first, second *object) {
	type holder struct {
		file int
		obj  *object
	}
	seen := map[Ref]holder{}
	for i := range files {
		if choice[i] == nil {
			continue
		}
		for j := range choice[i].objects {
			o := &choice[i].objects[j]
			if have, ok := seen[o.ref]; ok {
				return have.file, i, have.obj, o
			}
			seen[o.ref] = holder{i, o}
		}
	}
	return 0, 0, nil, nil
}

// fileProblems lists what is wrong with the files, in the order of their names.
func (s *scanner) fileProblems() (out []error) {
	for _, f := range s.sorted() {
		if err := f.problem(); err != nil {
			out = append(out, err)
		}
	}
	return out
}

func (f *file) problem() error {
	if f.err != nil {
		return f.err
	}
	return f.clash
}

// objects makes the set of what is in force.
func (s *scanner) objects() *Objects {
	objs := &Objects{origin: map[Ref]Place{}}
	for _, f := range s.sorted() {
		if f.good == nil {
			continue
		}
		for i := range f.good.objects {
			o := &f.good.objects[i]
			o.kind.add(objs, o.value)
			objs.origin[o.ref] = o.place
		}
	}
	objs.sortAll()
	objs.keepLists(s.last)
	s.last = objs
	return objs
}

// FileStatus says what a file gave.
type FileStatus struct {
	Name    string // without the directory
	Objects int
	// Ignored is the number of objects of kinds that Culvert has no use for.
	Ignored int
	// Error is why the file's present content is not in force, if so: the
	// objects are those of its last good content.
	Error string
}

// status lists all files in the order of their names.
func (s *scanner) status() []FileStatus {
	out := make([]FileStatus, 0, len(s.files))
	for _, f := range s.sorted() {
		st := FileStatus{Name: f.name}
		if err := f.problem(); err != nil {
			st.Error = err.Error()
		}
		if f.good != nil {
			st.Objects, st.Ignored = len(f.good.objects), f.good.ignored
		}
		out = append(out, st)
	}
	return out
}
