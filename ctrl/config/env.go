package config

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

const prefix = "CULVERT_"

// variables makes a map of NAME=VALUE lines; empty values count as not set.
func variables(environ []string) map[string]string {
	env := map[string]string{}
	for _, line := range environ {
		if name, v, ok := strings.Cut(line, "="); ok && v != "" {
			env[name] = v
		}
	}
	return env
}

// Variables are the names of the environment variables that set a key: dots
// become underscores and all is upper case, so native.crossSubnet is
// CULVERT_NATIVE_CROSSSUBNET; CULVERT_NATIVE_CROSS_SUBNET means the same. Lists
// are separated by commas.
func Variables(key string) []string {
	upper := func(s string) string { return prefix + strings.ToUpper(strings.ReplaceAll(s, ".", "_")) }
	var spaced strings.Builder
	for i, r := range key {
		// A capital after a small letter begins a word: clusterCIDRs has two.
		if i > 0 && unicode.IsUpper(r) && unicode.IsLower(rune(key[i-1])) {
			spaced.WriteByte('_')
		}
		spaced.WriteRune(r)
	}
	return slices.Compact([]string{upper(key), upper(spaced.String())})
}

// readEnv sets what environment variables say, and remembers those that say
// nothing to us.
func (c *Config) readEnv(env map[string]string) error {
	known := map[string]bool{}
	for _, k := range schema {
		names := Variables(k.name)
		first := ""
		for _, name := range names {
			known[name] = true
			v, ok := env[name]
			if !ok {
				continue
			}
			if first != "" && env[first] != v {
				return fmt.Errorf("%s: %s: differs from %s, which sets the same key; set one of them", name, k.name, first)
			}
			first = name
			if m := k.set(c, value{text: v}); m != nil {
				return fmt.Errorf("%s: %s%s: %s", name, k.name, m.sub, m.what)
			}
			c.note(k.name, FromEnvironment, name)
		}
	}
	for name := range env {
		if strings.HasPrefix(name, prefix) && !known[name] && !serviceLink.MatchString(name) {
			c.unknown = append(c.unknown, name)
		}
	}
	slices.Sort(c.unknown)
	return nil
}

// serviceLink matches what the kubelet sets for a Service named culvert-…:
// CULVERT_METRICS_SERVICE_HOST, CULVERT_METRICS_PORT_9476_TCP_ADDR.
var serviceLink = regexp.MustCompile(`(_SERVICE_HOST|_SERVICE_PORT(_.+)?|_PORT(_[0-9]+_(TCP|UDP|SCTP)(_.+)?)?)$`)

// UnknownVariables are CULVERT_ variables that set no key. They are worth a
// warning, not an error: the environment belongs to others too.
func (c *Config) UnknownVariables() []string { return c.unknown }

// defaultNode finds the node's name where nobody gave one.
func (c *Config) defaultNode(env map[string]string) error {
	if c.Node != "" {
		return nil
	}
	from := "NODE_NAME"
	c.Node = env[from]
	if c.Node == "" {
		from = "the hostname"
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("%s: node: not given, and the hostname cannot be read: %w; set node", c.place(), err)
		}
		c.Node = strings.ToLower(strings.TrimSpace(name)) // as the kubelet does
	}
	if what := nodeName(c.Node); what != "" {
		return fmt.Errorf("%s: node: taken from %s: %s", c.place(), from, what)
	}
	return nil
}

// place is where to look for a key that is nowhere.
func (c *Config) place() string {
	if c.file == "" {
		return "configuration"
	}
	return c.file
}
