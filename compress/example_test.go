package compress_test

import (
	"bytes"
	"fmt"
	"io"
	"log"

	"github.com/gardenlinux/gloci-layout/compress"
)

func ExampleNewWriter() {
	var out bytes.Buffer
	w, err := compress.NewWriter(&out, compress.Zstd, 0)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := io.WriteString(w, "some content"); err != nil {
		log.Fatal(err)
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}

	r, err := compress.NewReader(&out, compress.Detect(out.Bytes()))
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(data))
	// Output: some content
}
