package config

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"culvert/ctrl/config/yamlfile"
)

// maxFile bounds a configuration file; real ones have a few hundred bytes.
const maxFile = 1 << 20

// Load reads the configuration: defaults, over them the file, over it the
// environment variables CULVERT_<KEY> of environ (os.Environ). Without a path
// there is no file. An error is one line: the first mistake.
func Load(path string, environ []string) (*Config, error) {
	c := defaults()
	c.file = path
	if path != "" {
		if err := c.readFile(path); err != nil {
			return nil, err
		}
	}
	return c.finish(environ)
}

// Parse is Load for a file that is in memory already; name stands in errors.
func Parse(name string, text []byte, environ []string) (*Config, error) {
	c := defaults()
	c.file = name
	if err := c.readText(name, text); err != nil {
		return nil, err
	}
	return c.finish(environ)
}

func (c *Config) finish(environ []string) (*Config, error) {
	env := variables(environ)
	if err := c.readEnv(env); err != nil {
		return nil, err
	}
	if err := c.defaultNode(env); err != nil {
		return nil, err
	}
	if err := c.contradictions(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Config) readFile(path string) error {
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: does not exist; name the configuration file with --config", path)
	}
	if err == nil && !st.Mode().IsRegular() {
		return fmt.Errorf("%s: is no file; name the configuration file with --config", path)
	}
	if err == nil && st.Size() > maxFile {
		return fmt.Errorf("%s: has %d bytes, at most %d are read; is this the configuration?", path, st.Size(), maxFile)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return fmt.Errorf("%s: cannot be read: %w; check its permissions", path, unwrapPath(err))
	}
	return c.readText(path, text)
}

// unwrapPath drops the file's name, which the line has already.
func unwrapPath(err error) error {
	if pe := (*os.PathError)(nil); errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func (c *Config) readText(name string, text []byte) error {
	docs := yamlfile.Split(text)
	if len(docs) == 0 {
		return nil
	}
	if len(docs) > 1 {
		return &yamlfile.Error{File: name, Line: docs[1].Line, What: "a second document begins; keep the configuration in one"}
	}
	root, err := yamlfile.Parse(name, docs[0])
	if err != nil {
		return err
	}
	return c.readMap(name, root, "")
}

// readMap sets the keys of a section; path is its name, empty for the file.
func (c *Config) readMap(name string, n *yamlfile.Node, path string) error {
	if n.Kind == yamlfile.Null {
		return nil
	}
	if n.Kind != yamlfile.Map {
		return &yamlfile.Error{File: name, Line: n.Line, Key: path, What: fmt.Sprintf("is %s, want a mapping; write key: value lines", n.Kind)}
	}
	for _, f := range n.Fields {
		at := yamlfile.Join(path, f.Key)
		k, known := keyNamed(at)
		switch {
		case known && f.Value.Kind == yamlfile.Null: // as if the line were not there
		case known:
			if m := k.set(c, value{node: f.Value}); m != nil {
				return &yamlfile.Error{File: name, Line: m.line, Key: at + m.sub, What: m.what}
			}
			c.note(at, FromFile, fmt.Sprintf("%s:%d", name, f.Line))
		case isSection(at):
			if err := c.readMap(name, f.Value, at); err != nil {
				return err
			}
		default:
			return &yamlfile.Error{File: name, Line: f.Line, Key: at, What: unknown(path, f.Key)}
		}
	}
	return nil
}

// note remembers where a key was set.
func (c *Config) note(key, from, where string) {
	c.from[key] = from
	c.where[key] = where
}

func isSection(name string) bool {
	for _, k := range schema {
		if strings.HasPrefix(k.name, name+".") {
			return true
		}
	}
	return false
}

// unknown says what the user may have meant.
func unknown(path, name string) string {
	var names []string
	for _, k := range schema {
		rest := k.name
		if path != "" {
			var ok bool
			if rest, ok = strings.CutPrefix(k.name, path+"."); !ok {
				continue
			}
		}
		rest, _, _ = strings.Cut(rest, ".")
		if len(names) == 0 || names[len(names)-1] != rest {
			names = append(names, rest)
		}
	}
	for _, n := range names {
		if strings.EqualFold(n, name) || strings.EqualFold(n, name+"s") || strings.EqualFold(n+"s", name) {
			return fmt.Sprintf("unknown key; did you mean %s?", n)
		}
	}
	return "unknown key; known here are " + strings.Join(names, ", ")
}
