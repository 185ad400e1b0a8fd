// Command mkimage writes Culvert's image: make image.
//
//	mkimage -o FILE -created SECONDS -name NAME[,NAME...] PROGRAM...
//
// The programs are put into /bin; the first is what the image runs.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"culvert/internal/ociimage"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("mkimage", flag.ContinueOnError)
	out := flags.String("o", "", "`FILE` to write")
	names := flags.String("name", "", "the image's names, separated by commas")
	created := flags.Int64("created", 0, "`SECONDS` since 1970: the commit's time")
	version := flags.String("version", "", "what the image's label says")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out == "" || *names == "" || flags.NArg() == 0 {
		return errors.New("-o, -name and a program are needed")
	}
	c := ociimage.Config{
		Created: time.Unix(*created, 0), User: "0:0", Env: []string{"PATH=/bin"},
		Entrypoint: []string{"/bin/" + filepath.Base(flags.Arg(0))},
		Labels: map[string]string{
			"org.opencontainers.image.title": "culvert", "org.opencontainers.image.version": *version,
			"org.opencontainers.image.licenses": "Apache-2.0",
		},
	}
	var files []ociimage.File
	for _, program := range flags.Args() {
		arch, err := ociimage.Machine(program)
		if err != nil {
			return err
		}
		if c.Architecture != "" && c.Architecture != arch {
			return fmt.Errorf("%s is for %s, %s for %s", flags.Arg(0), c.Architecture, program, arch)
		}
		c.Architecture = arch
		files = append(files, ociimage.File{Path: "/bin/" + filepath.Base(program), Mode: 0o755, From: program})
	}
	if err := ociimage.Write(*out, strings.Split(*names, ","), files, c); err != nil {
		return err
	}
	fmt.Printf("%s: %s (%s)\n", *out, strings.ReplaceAll(*names, ",", ", "), c.Architecture)
	return nil
}
