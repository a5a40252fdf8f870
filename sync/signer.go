package sync

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containers/image/v5/pkg/cli/sigstore/params"
	"github.com/opencontainers/go-digest"
	"github.com/secure-systems-lab/go-securesystemslib/encrypted"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A Signer makes signatures of sigstore with one private key. The same key and
// the same text give the same signature: no clock and no random number is in
// it, so signing again adds nothing.
type Signer struct{ key crypto.Signer }

// OpenSigner reads an encrypted private key as cosign, skopeo and podman make it
// (generate-key-pair, generate-sigstore-key): ECDSA, RSA or Ed25519. The
// passphrase is the first line of passphraseFile. A key that cannot be read so,
// or not with that passphrase, is [layout.ErrInvalid].
func OpenSigner(keyFile, passphraseFile string) (*Signer, error) {
	raw, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	passphrase, err := firstLine(passphraseFile)
	if err != nil {
		return nil, err
	}
	s, err := newSigner(raw, passphrase)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w: %w", keyFile, layout.ErrInvalid, err)
	}
	return s, nil
}

// OpenSigningParams is [OpenSigner] for the key and the file with the passphrase
// that a file of parameters names (containers-sigstore-signing-params.yaml(5)).
// Its ways to sign without a key, and its log of signatures, need servers, and
// are [errors.ErrUnsupported].
func OpenSigningParams(file, passphraseFile string) (*Signer, error) {
	p, err := params.ParseFile(file)
	switch {
	case err != nil:
		return nil, err
	case p.Fulcio != nil:
		return nil, fmt.Errorf("%s: fulcio: %w", file, errors.ErrUnsupported)
	case p.RekorURL != "":
		return nil, fmt.Errorf("%s: rekorURL: %w", file, errors.ErrUnsupported)
	case p.PrivateKeyFile == "":
		return nil, fmt.Errorf("%s: %w: no privateKeyFile", file, layout.ErrInvalid)
	case p.PrivateKeyPassphraseFile != "":
		passphraseFile = p.PrivateKeyPassphraseFile
	}
	if passphraseFile == "" {
		return nil, fmt.Errorf("%s: %w: no privateKeyPassphraseFile", file, layout.ErrInvalid)
	}
	return OpenSigner(p.PrivateKeyFile, passphraseFile)
}

func firstLine(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	line, err := bufio.NewReader(io.LimitReader(f, 64<<10)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return []byte(strings.TrimSuffix(line, "\n")), nil
}

func newSigner(raw, passphrase []byte) (*Signer, error) {
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != "ENCRYPTED SIGSTORE PRIVATE KEY" && block.Type != "ENCRYPTED COSIGN PRIVATE KEY" {
		return nil, errors.New("not an encrypted private key of cosign, skopeo or podman")
	}
	der, err := encrypted.Decrypt(block.Bytes, passphrase)
	if err != nil {
		return nil, layout.WithHint(err, "is that the passphrase of this key?")
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		return &Signer{key}, nil
	case *rsa.PrivateKey:
		return &Signer{key}, nil
	case ed25519.PrivateKey:
		return &Signer{key}, nil
	}
	return nil, fmt.Errorf("keys of type %T: %w", key, errors.ErrUnsupported)
}

// A statement is the signed text (cosign, SIGNATURE_SPEC.md).
type statement struct {
	Critical struct {
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest digest.Digest `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
	Optional map[string]any `json:"optional"`
}

const statementType = "cosign container image signature"

// says tells whether the text says that d is identity.
func says(text []byte, d digest.Digest, identity string) bool {
	var s statement
	return json.Unmarshal(text, &s) == nil && s.Critical.Type == statementType &&
		s.Critical.Image.Digest == d && s.Critical.Identity.Reference == identity
}

// made tells whether the signature, in base64, is one of the text by the key.
func (s *Signer) made(text []byte, signature string) bool {
	raw, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		return false
	}
	sum := sha256.Sum256(text)
	switch key := s.key.Public().(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, sum[:], raw)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], raw) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(key, text, raw)
	}
	return false
}

// sign says that identity, a reference with a tag or digest, is d.
func (s *Signer) sign(d digest.Digest, identity string) (sigstoreSignature, error) {
	said := statement{Optional: map[string]any{"creator": "gloci-layout"}}
	said.Critical.Identity.Reference, said.Critical.Image.Digest, said.Critical.Type = identity, d, statementType
	payload, err := json.Marshal(said)
	if err != nil {
		return sigstoreSignature{}, err
	}
	text, hash := payload, crypto.Hash(0) // Ed25519 does its own hashing
	if _, ok := s.key.(ed25519.PrivateKey); !ok {
		sum := sha256.Sum256(payload)
		text, hash = sum[:], crypto.SHA256
	}
	// Without a source of random numbers, ECDSA makes them from the key and the
	// text (RFC 6979); the others need none.
	made, err := s.key.Sign(nil, text, hash)
	if err != nil {
		return sigstoreSignature{}, err
	}
	return sigstoreSignature{
		MediaType: mediaTypeSimpleSigning, Payload: payload,
		Annotations: map[string]string{annotationSignature: base64.StdEncoding.EncodeToString(made)},
	}, nil
}
