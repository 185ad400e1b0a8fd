package vm

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"path"
)

// archive writes a root file system in the format that the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst: "newc").
type archive struct {
	w     io.Writer
	made  map[string]bool // paths that are in it
	inode int
	err   error // the first one; what follows it is not written
}

func newArchive(w io.Writer) *archive {
	return &archive{w: w, made: map[string]bool{"/": true}}
}

// The types of files, as in st_mode.
const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
)

func (a *archive) dir(name string) {
	if a.made[name] || a.err != nil {
		return
	}
	a.add(name, typeDir|0o755, nil)
}

func (a *archive) file(name string, mode fs.FileMode, content []byte) {
	a.add(name, typeFile|uint32(mode.Perm()), content)
}

func (a *archive) link(name, target string) { a.add(name, typeLink|0o777, []byte(target)) }

// add writes one member, and the directories that lead to it if they are not
// there. The first one of a name counts.
func (a *archive) add(name string, mode uint32, content []byte) {
	if a.made[name] || a.err != nil {
		return
	}
	a.dir(path.Dir(name))
	a.made[name] = true
	a.inode++
	a.member(name[1:], mode, content)
}

// member writes header, name and content, each padded to four bytes.
func (a *archive) member(name string, mode uint32, content []byte) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x", a.inode, mode, 0, 0, 1, 0, len(content))
	fmt.Fprintf(&b, "%08x%08x%08x%08x%08x%08x", 0, 0, 0, 0, len(name)+1, 0)
	b.WriteString(name)
	b.WriteByte(0)
	b.Write(make([]byte, -b.Len()&3))
	for _, part := range [][]byte{b.Bytes(), content, make([]byte, -len(content)&3)} {
		if a.err == nil {
			_, a.err = a.w.Write(part)
		}
	}
}

// close ends the archive.
func (a *archive) close() error {
	if a.err == nil {
		a.inode = 0
		a.member("TRAILER!!!", 0, nil)
	}
	return a.err
}
