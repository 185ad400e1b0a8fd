//go:build containers

package containers

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
)

// image is the one image there is: podtool, and nothing below it.
const image = "localhost/podtool:1"

type object = map[string]any

// writeImage makes an OCI image archive of one program.
func writeImage(archive, program string) error {
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var layer, out bytes.Buffer
	files := tar.NewWriter(&layer)
	put := func(w *tar.Writer, name string, mode int64, data []byte) {
		if err == nil {
			err = w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data)), Format: tar.FormatUSTAR})
		}
		if err == nil {
			_, err = w.Write(data)
		}
	}
	put(files, filepath.Base(program), 0o755, data)
	if err != nil || files.Close() != nil {
		return err
	}
	w := tar.NewWriter(&out)
	// blob adds content under its digest and describes it.
	blob := func(kind string, content []byte) object {
		sum := sha256.Sum256(content)
		digest := hex.EncodeToString(sum[:])
		put(w, "blobs/sha256/"+digest, 0o644, content)
		return object{"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + digest, "size": len(content)}
	}
	encode := func(v object) []byte {
		text, _ := json.Marshal(v)
		return text
	}
	put(w, "oci-layout", 0o644, encode(object{"imageLayoutVersion": "1.0.0"}))
	l := blob("layer.v1.tar", layer.Bytes())
	config := blob("config.v1+json", encode(object{
		"architecture": "amd64", "os": "linux",
		"config": object{"Entrypoint": []string{"/podtool"}, "Cmd": []string{"pause"}},
		"rootfs": object{"type": "layers", "diff_ids": []any{l["digest"]}},
	}))
	manifest := blob("manifest.v1+json", encode(object{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": []any{l},
	}))
	manifest["annotations"] = object{"io.containerd.image.name": image, "org.opencontainers.image.ref.name": image}
	put(w, "index.json", 0o644, encode(object{"schemaVersion": 2, "manifests": []any{manifest}}))
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return err
	}
	return os.WriteFile(archive, out.Bytes(), 0o644)
}
