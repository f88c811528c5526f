package client_test

import (
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/vss-cloud/vss-cloud/api/client"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
)

func page(token *string, global *int64, keys ...string) *vsspb.ListKeyVersionsResponse {
	p := &vsspb.ListKeyVersionsResponse{NextPageToken: token, GlobalVersion: global}
	for _, k := range keys {
		p.KeyVersions = append(p.KeyVersions, &vsspb.KeyValue{Key: k, Version: 1})
	}
	return p
}

func TestListAllReadsUntilTheTokenIsPresentAndEmpty(t *testing.T) {
	s := serve(t,
		status(200, page(proto.String("a"), proto.Int64(5), "k3", "k2")),
		busy,
		status(200, page(proto.String("b"), nil)),
		status(200, page(proto.String(""), nil, "k1")))
	req := &vsspb.ListKeyVersionsRequest{StoreId: "s", KeyPrefix: proto.String("k")}
	all, err := clientOf(t, s, nil).ListAll(t.Context(), req)
	want := page(proto.String(""), proto.Int64(5), "k3", "k2", "k1")
	if err != nil || !proto.Equal(all, want) {
		t.Errorf("%v, %v, want %v", all, err, want)
	}
	var tokens []string
	for _, r := range s.seen() {
		var sent vsspb.ListKeyVersionsRequest
		if err := proto.Unmarshal(r.body, &sent); err != nil || sent.GetKeyPrefix() != "k" || sent.GetStoreId() != "s" {
			t.Errorf("sent %v, %v", &sent, err)
		}
		tokens = append(tokens, sent.GetPageToken())
	}
	if !slices.Equal(tokens, []string{"", "a", "a", "b"}) {
		t.Errorf("asked for pages %q", tokens)
	}
	if req.PageToken != nil {
		t.Error("the caller's request was changed")
	}
}

func TestPagesEndWhenTheCallerHasEnough(t *testing.T) {
	s := serve(t, status(200, page(proto.String("a"), nil, "k")))
	for _, err := range clientOf(t, s, nil).Pages(t.Context(), &vsspb.ListKeyVersionsRequest{}) {
		if err != nil {
			t.Error(err)
		}
		break
	}
	if n := len(s.seen()); n != 1 {
		t.Errorf("%d pages were read", n)
	}
}

func TestAListThatCannotEndIsAnError(t *testing.T) {
	for name, last := range map[string]*vsspb.ListKeyVersionsResponse{
		"a page without a token":         page(nil, nil, "k1"),
		"a page that names itself again": page(proto.String("a"), nil, "k1"),
	} {
		s := serve(t, status(200, page(proto.String("a"), nil, "k2")), status(200, last))
		if all, err := clientOf(t, s, nil).ListAll(t.Context(), &vsspb.ListKeyVersionsRequest{}); !errors.Is(err, client.ErrProtocol) {
			t.Errorf("%s: %v, %v, want ErrProtocol", name, all, err)
		}
		if n := len(s.seen()); n != 2 {
			t.Errorf("%s: %d pages were read, want 2", name, n)
		}
	}
}

func TestAListFailsWithItsPage(t *testing.T) {
	s := serve(t, status(200, page(proto.String("a"), nil, "k2")), failure(400, vsspb.ErrorCode_INVALID_REQUEST_EXCEPTION))
	all, err := clientOf(t, s, nil).ListAll(t.Context(), &vsspb.ListKeyVersionsRequest{})
	if all != nil || !errors.Is(err, client.ErrInvalidRequest) {
		t.Errorf("%v, %v, want ErrInvalidRequest and no half a list", all, err)
	}
}
