//go:build linux

package main_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// skopeoSigns: what skopeo has signed with gpg passes a policy that asks for
// that key, from where skopeo has put the signature; nothing else passes, with
// skopeo as with us. The skopeo of Debian is built without sigstore: package
// sync tests that with containers/image's own client.
func skopeoSigns(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	peerTool(t, "gpg")
	gpg := h.path("gnupg")
	writePeerFile(t, filepath.Join(gpg, "gpg.conf"), "batch\nno-tty\n")
	h.env = append(h.env, "GNUPGHOME="+gpg)
	h.run("chmod", "700", gpg)
	defer h.run("gpgconf", "--kill", "all") // a clean-up would come after the end of its context
	h.run("gpg", "--passphrase", "", "--pinentry-mode", "loopback", "--quick-generate-key", "peer@example.org", "rsa2048", "sign", "never")
	h.run("gpg", "--armor", "--output", h.path("key.asc"), "--export", "peer@example.org")

	repo := strings.Replace(v.repo, "gardenlinux/test", "gardenlinux/signed", 1)
	config := h.path("home/.config/containers/registries.d")
	writePeerFile(t, filepath.Join(config, "default.yaml"), fmt.Sprintf(
		"default-docker:\n  lookaside: file://%[1]s\n  lookaside-staging: file://%[1]s\n", h.path("lookaside")))
	h.run("skopeo", "copy", "--sign-by", "peer@example.org", "--dest-tls-verify=false", "oci:"+v.dir+":"+refApp, "docker://"+repo+":signed")
	h.run("skopeo", "copy", "--dest-tls-verify=false", "oci:"+v.dir+":"+refApp, "docker://"+repo+":unsigned")

	policy := h.path("policy.json")
	writePeerFile(t, policy, fmt.Sprintf(`{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":%q}]}`, h.path("key.asc")))
	theirs := func(tag string) []string {
		return []string{"--policy", policy, "--registries.d", config, "copy", "--src-tls-verify=false", "docker://" + repo + ":" + tag, "dir:" + h.path("dir-"+tag)}
	}
	h.run("skopeo", theirs("signed")...)
	h.fails([]string{"rejected"}, "skopeo", theirs("unsigned")...)
	ours := func(tag string) []string {
		return []string{"pull", "--tls-verify=false", "--policy", policy, "--registries.d", config, "docker://" + repo + ":" + tag, h.path("ours")}
	}
	mustRun(t, h.dir, ours("signed")...)
	if r := runBinary(t, h.dir, ours("unsigned")...); r.exit != 2 || !strings.Contains(r.stderr, "rejected by policy.json") || !strings.Contains(r.stderr, "hint: ") {
		t.Errorf("unsigned: exit %d, %s", r.exit, r.stderr)
	}
	// The files beside the content of a dir: are signatures too.
	mustRun(t, h.dir, "sync", "--tls-verify=false", "dir:"+h.path("dir-signed"), "docker://"+repo+":again", "--policy", h.path("home/.config/containers/policy.json"))
}
