package serve

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/serve/internal/content"
)

// MirrorKinds are the clients that [Server.MirrorConfig] writes for.
var MirrorKinds = []string{"podman", "containerd", "k3s", "flux"}

// exampleHost stands where the sources do not say what they are a mirror of.
const exampleHost = "registry.example.com"

// MirrorConfig returns the configuration that makes a client ask address, as
// HOST:PORT, for what is served, in place of the registries that the full ref
// names and Source.Host name. Another kind than those of [MirrorKinds] is
// [layout.ErrInvalid].
func (s *Server) MirrorConfig(kind, address string) (string, error) {
	held := s.content.Acquire()
	if held == nil {
		return "", fmt.Errorf("the server is closed: %w", layout.ErrNotFound)
	}
	defer s.content.Release(held)
	m := mirror{address: address, url: "http://" + address, secure: s.opts.TLS != nil, set: held, hosts: map[string]bool{}}
	if m.secure {
		m.url = "https://" + address
	}
	for _, r := range held.Repos {
		for host := range r.Hosts {
			m.hosts[host] = true
		}
	}
	return m.write(kind)
}

type mirror struct {
	address, url string
	secure       bool
	set          *content.Set
	hosts        map[string]bool
}

func (m *mirror) write(kind string) (string, error) {
	var b strings.Builder
	hosts := slices.Sorted(maps.Keys(m.hosts))
	if len(hosts) == 0 && kind != "flux" {
		hosts = []string{exampleHost}
		fmt.Fprintf(&b, "# The sources do not say which registry they are a mirror of: put its name in the\n"+
			"# place of %s, or name it with SOURCE=HOST/REPO.\n", exampleHost)
	}
	switch kind {
	case "podman":
		fmt.Fprintf(&b, "# /etc/containers/registries.conf.d/gloci-layout.conf, for podman, buildah, skopeo and CRI-O\n")
		fmt.Fprintf(&b, "[[registry]]\nlocation = %q\ninsecure = %t\n", m.address, !m.secure)
		for _, host := range hosts {
			fmt.Fprintf(&b, "\n[[registry]]\nprefix = %q\nlocation = %q\n\n[[registry.mirror]]\nlocation = %q\ninsecure = %t\n",
				host, host, m.address, !m.secure)
		}
	case "containerd":
		for i, host := range hosts {
			if i > 0 {
				b.WriteByte('\n')
			}
			fmt.Fprintf(&b, "# /etc/containerd/certs.d/%s/hosts.toml; config_path of the registry plugin is /etc/containerd/certs.d\n", host)
			fmt.Fprintf(&b, "server = %q\n\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", upstream(host), m.url)
		}
	case "k3s":
		b.WriteString("# /etc/rancher/k3s/registries.yaml, also for RKE2: /etc/rancher/rke2/registries.yaml\nmirrors:\n")
		for _, host := range hosts {
			fmt.Fprintf(&b, "  %q:\n    endpoint:\n      - %q\n", host, m.url)
		}
	case "flux":
		m.flux(&b)
	default:
		return "", fmt.Errorf("%w client %q: want one of %s", layout.ErrInvalid, kind, strings.Join(MirrorKinds, ", "))
	}
	return b.String(), nil
}

// upstream is where a registry is to be had without a mirror.
func upstream(host string) string {
	if host == "docker.io" {
		return "https://registry-1.docker.io"
	}
	return "https://" + host
}

// flux has no mirrors: each source names where it is.
func (m *mirror) flux(b *strings.Builder) {
	for i, name := range m.set.Names {
		r := m.set.Repos[name]
		if i > 0 {
			b.WriteString("---\n")
		}
		fmt.Fprintf(b, "apiVersion: source.toolkit.fluxcd.io/v1\nkind: OCIRepository\nmetadata:\n  name: %q\n  namespace: flux-system\n"+
			"spec:\n  interval: 5m\n  url: %q\n  insecure: %t\n", objectName(name), "oci://"+m.address+"/"+name, !m.secure)
		if len(r.TagNames) > 0 {
			fmt.Fprintf(b, "  ref:\n    tag: %q\n", r.TagNames[len(r.TagNames)-1])
		}
	}
}

// objectName makes the name of a Kubernetes object.
func objectName(name string) string {
	name = strings.NewReplacer("/", "-", "_", "-", ".", "-").Replace(name)
	return cmp.Or(strings.Trim(name[:min(len(name), 63)], "-"), "layout")
}
