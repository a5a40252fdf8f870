package web_test

import (
	"testing"

	"github.com/gardenlinux/gloci-layout/sync/serve/web"
)

// BenchmarkOpen is the first request for 2,000 manifests; BenchmarkAgain one when
// nothing has changed.
func BenchmarkOpen(b *testing.B) {
	repo := web.Repository{Name: "large", Source: newLarge(b, 2000)}
	for b.Loop() {
		get(b, start(b, repo).URL+"/r/large")
	}
}

func BenchmarkAgain(b *testing.B) {
	s := start(b, web.Repository{Name: "large", Source: newLarge(b, 2000)})
	get(b, s.URL+"/r/large")
	for b.Loop() {
		get(b, s.URL+"/r/large")
	}
}
