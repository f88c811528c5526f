package api_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/vss-cloud/vss-cloud/api"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
)

// As on a machine that was paused: the request and the end of its connection have both arrived when the process
// goes on, and net/http has not looked for the latter yet.
func TestAPutWhoseClientHasLeftDoesNotReachTheStore(t *testing.T) {
	t.Parallel()
	var reached atomic.Int64
	arrived, goOn := make(chan struct{}, 1), make(chan struct{})
	var stands atomic.Bool
	p := start(t, over(fake{put: func(context.Context, storage.Keyspace, storage.Batch) error {
		reached.Add(1)
		return nil
	}}), func(cfg *api.Config) {
		cfg.Auth = callers.NewAuthenticator(callers.AuthenticatorConfig{Now: func() time.Time {
			if stands.Load() {
				arrived <- struct{}{}
				<-goOn
			}
			return time.Now()
		}})
	})
	w := p.wallet(t, "acme", 1)
	body, err := proto.Marshal(&vsspb.PutObjectRequest{TransactionItems: []*vsspb.KeyValue{{Key: "k", Version: -1}}})
	check(t, err)
	stands.Store(true)
	const n = 20
	for range n {
		conn := p.dial(t)
		conn.send(t, w.head(t, "putObjects", "Content-Length: "+strconv.Itoa(len(body)))+string(body))
		<-arrived
		check(t, conn.Close())
		time.Sleep(10 * time.Millisecond) // for the end of the connection to arrive
		goOn <- struct{}{}
	}
	stands.Store(false)
	time.Sleep(300 * time.Millisecond)
	if got := reached.Load(); got != 0 {
		t.Fatalf("%d of %d puts reached the store", got, n)
	}
}

func TestAFirstWriteWhoseClientHasLeftIsNotAskedForAgain(t *testing.T) {
	t.Parallel()
	arrived, goOn := make(chan struct{}), make(chan struct{})
	answered := make(chan struct{}, 1)
	var again atomic.Int64
	p := start(t, over(limited(func(_ context.Context, l storage.Limits) (storage.Written, error) {
		if l.Begin == nil {
			arrived <- struct{}{}
			<-goOn
			return storage.Written{}, &storage.NeverWrittenError{NewWallet: true}
		}
		again.Add(1)
		return storage.Written{NewWallet: true}, nil
	})), func(cfg *api.Config) {
		cfg.Quota.Totals = func(uuid.UUID) (int64, int64) { answered <- struct{}{}; return 0, 0 }
	})
	w := p.wallet(t, "acme", 1)
	for range 10 {
		conn := p.dial(t)
		conn.send(t, w.text(t, "putObjects", put(item("k", -1))))
		<-arrived
		check(t, conn.Close())
		time.Sleep(10 * time.Millisecond) // for the end of the connection to arrive
		goOn <- struct{}{}
		<-answered
	}
	p.drain()
	<-p.served
	if n := again.Load(); n != 0 {
		t.Errorf("%d of 10 were", n)
	}
}
