package main

import (
	"context"

	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote"
)

// orasSend and orasFetch are oras-go as its documentation shows it: a store and
// a repository, one copy for each tag.
func orasSend(ctx context.Context, dir, repository string, tags []string) error {
	return orasCopies(ctx, dir, repository, tags, func(store *oci.Store, repo *remote.Repository, tag string) error {
		_, err := oras.Copy(ctx, store, tag, repo, tag, oras.DefaultCopyOptions)
		return err
	})
}

func orasFetch(ctx context.Context, dir, repository string, tags []string) error {
	return orasCopies(ctx, dir, repository, tags, func(store *oci.Store, repo *remote.Repository, tag string) error {
		_, err := oras.Copy(ctx, repo, tag, store, tag, oras.DefaultCopyOptions)
		return err
	})
}

func orasCopies(ctx context.Context, dir, repository string, tags []string, one func(*oci.Store, *remote.Repository, string) error) error {
	store, err := oci.NewWithContext(ctx, dir)
	if err != nil {
		return err
	}
	repo, err := remote.NewRepository(repository)
	if err != nil {
		return err
	}
	repo.PlainHTTP = true
	for _, tag := range tags {
		if err := one(store, repo, tag); err != nil {
			return err
		}
	}
	return nil
}
