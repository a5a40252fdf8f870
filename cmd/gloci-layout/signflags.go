package main

import (
	"github.com/urfave/cli/v2"

	layoutsync "github.com/gardenlinux/gloci-layout/sync"
)

// signFlags name private keys; their names are skopeo's.
type signFlags struct{ params, key, passphrase string }

func (f *signFlags) flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "sign-by-sigstore", Usage: "sign as the parameters in `FILE` say, those of containers-sigstore-signing-params.yaml(5) that are about a private key", Destination: &f.params},
		&cli.StringFlag{Name: "sign-by-sigstore-private-key", Usage: "sign with the encrypted private key in `FILE`, as cosign, podman and skopeo make it", Destination: &f.key},
		&cli.StringFlag{Name: "sign-passphrase-file", Usage: "the first line of `FILE` is the passphrase of the key", Destination: &f.passphrase},
	}
}

// signers opens the keys, none without flags.
func (f *signFlags) signers(c *cli.Context) (signers []*layoutsync.Signer, err error) {
	switch {
	case f.key != "" && f.passphrase == "":
		return nil, usagef(c, "--sign-by-sigstore-private-key goes with --sign-passphrase-file")
	case f.passphrase != "" && f.key == "" && f.params == "":
		return nil, usagef(c, "--sign-passphrase-file goes with a key")
	}
	open := func(s *layoutsync.Signer, err error) error {
		signers = append(signers, s)
		return err
	}
	if f.params != "" {
		if err := open(layoutsync.OpenSigningParams(f.params, f.passphrase)); err != nil {
			return nil, err
		}
	}
	if f.key != "" {
		if err := open(layoutsync.OpenSigner(f.key, f.passphrase)); err != nil {
			return nil, err
		}
	}
	return signers, nil
}
