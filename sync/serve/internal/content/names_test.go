package content

import "testing"

// Ref names become tags of repositories.
func TestRefNames(t *testing.T) {
	for refName, want := range map[string][4]string{
		"app":                                  {"", "", "app", "true"},
		"1.2.3_x-Y":                            {"", "", "1.2.3_x-Y", "true"},
		"ghcr.io/gardenlinux/gardenlinux:1877": {"ghcr.io", "gardenlinux/gardenlinux", "1877", "true"},
		"localhost/app:v1":                     {"localhost", "app", "v1", "true"},
		"localhost:5000/a/b:v1":                {"localhost:5000", "a/b", "v1", "true"},
		"library/app:v1":                       {"", "library/app", "v1", "true"},
		"app:v1":                               {"", "app", "v1", "true"},
		"-x":                                   {"", "", "-x", "false"},
		"a+b":                                  {"", "", "a+b", "false"},
		"a/b":                                  {"", "", "a/b", "false"},
		"App:v1":                               {"", "", "", "false"},
		"ghcr.io/x:":                           {"ghcr.io", "x", "", "false"},
	} {
		host, repo, tag, ok := SplitRefName(refName)
		if got := [4]string{host, repo, tag, map[bool]string{true: "true", false: "false"}[ok]}; got != want {
			t.Errorf("SplitRefName(%q) = %q, want %q", refName, got, want)
		}
	}
	for name, want := range map[string]bool{"a": true, "a/b-c__d.e--f/0": true, "": false, "/": false, "a/": false, "a..b": false, "a___b": false, "A": false, "a.-b": false, "-a": false, "a\x00": false} {
		if got := IsName(name); got != want {
			t.Errorf("IsName(%q) = %t", name, got)
		}
	}
}
