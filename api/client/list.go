package client

import (
	"context"
	"fmt"
	"iter"

	"google.golang.org/protobuf/proto"

	"github.com/vss-cloud/vss-cloud/api/vsspb"
)

// Pages reads the pages of a list, from the one that the request names to the last: that is the one whose
// next_page_token is present and empty (CONTRACT section 2). The request is not changed.
//
// An error ends the iteration. A page without a token, or with the token that it was asked by, is
// [ErrProtocol]: what it leaves out, or repeats for ever, would look like a store that is smaller or
// larger than it is.
func (c *Client) Pages(
	ctx context.Context, req *vsspb.ListKeyVersionsRequest,
) iter.Seq2[*vsspb.ListKeyVersionsResponse, error] {
	return func(yield func(*vsspb.ListKeyVersionsResponse, error) bool) {
		req := proto.CloneOf(req)
		for {
			page, err := c.ListKeyVersions(ctx, req)
			if err != nil {
				yield(nil, err)
				return
			}
			next := page.NextPageToken
			switch {
			case next == nil:
				yield(nil, fmt.Errorf("listKeyVersions: %w: a page without next_page_token", ErrProtocol))
				return
			case *next != "" && *next == req.GetPageToken():
				yield(nil, fmt.Errorf("listKeyVersions: %w: a page that names itself as the next", ErrProtocol))
				return
			}
			if !yield(page, nil) || *next == "" {
				return
			}
			req.PageToken = next
		}
	}
}

// ListAll reads all pages into one: all keys and versions, in the server's order, and the store's version as
// the first page had it.
func (c *Client) ListAll(
	ctx context.Context, req *vsspb.ListKeyVersionsRequest,
) (*vsspb.ListKeyVersionsResponse, error) {
	all := &vsspb.ListKeyVersionsResponse{NextPageToken: new(string)}
	for page, err := range c.Pages(ctx, req) {
		if err != nil {
			return nil, err
		}
		if all.GlobalVersion == nil {
			all.GlobalVersion = page.GlobalVersion
		}
		all.KeyVersions = append(all.KeyVersions, page.GetKeyVersions()...)
	}
	return all, nil
}
