package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/vss-cloud/vss-cloud/api/client"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/cmd/cli"
)

// wallet is the flags of a call as a wallet makes it.
type wallet struct {
	URL     string        `name:"url" env:"VSS_URL" placeholder:"URL" help:"The tenant's base URL (that of --tenant where a 'vssctl dev' runs on the data directory, else at VSS_API_LISTEN: http://localhost:8080/t/demo/vss)."`
	Tenant  string        `default:"demo" placeholder:"SLUG" help:"The tenant, without --url (${default})."`
	KeyFile string        `env:"VSS_WALLET_KEY_FILE" placeholder:"FILE" help:"The wallet's secret key, 64 hex digits; made if it does not exist (wallet.key in vss-cloud in the user's configuration directory)."`
	Token   string        `env:"VSS_TOKEN" placeholder:"JWT" help:"A token instead of a key: the wallet is that of its sub. Better in VSS_TOKEN, which no list of processes shows."`
	StoreID string        `name:"store-id" placeholder:"TEXT" help:"The contract's store_id (empty)."`
	Timeout time.Duration `default:"30s" placeholder:"DURATION" help:"For the whole call, retries included (${default})."`
}

// with calls do with a client for the wallet.
func (w wallet) with(ctx context.Context, do func(context.Context, *client.Client) error) error {
	auth, err := w.auth()
	if err != nil {
		return err
	}
	base := w.URL
	if base == "" {
		var platform string
		if dir, err := (database{DataDir: os.Getenv("VSS_DATA_DIR")}).dataDir(); err == nil {
			platform = findRunning(dir)
		}
		if platform == "" {
			platform = localURL(cmp.Or(os.Getenv("VSS_API_LISTEN"), "127.0.0.1:8080"))
		}
		base = walletURL(platform, w.Tenant)
	}
	// A person waits: half a second of retries is enough to ride out a hiccup, and none mends a bad token.
	c, err := client.New(client.Config{BaseURL: base, Auth: auth, Retry: client.Retry{MaxAttempts: 6, FailFast: true}})
	if err != nil {
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	defer c.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	return refusal(untilKnown(ctx, func() error { return do(ctx, c) }))
}

// untilKnown makes a call again while its tenant is unknown, for as long as an instance may take to hear of a tenant
// that was just created. An unknown tenant's call changes nothing, so to make it again is harmless.
func untilKnown(ctx context.Context, call func() error) error {
	for began := time.Now(); ; {
		err := call()
		if !errors.Is(err, client.ErrUnknownTenant) || time.Since(began) > 5*time.Second {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// refused is an answer by which the server keeps to a limit or a rule of its tenant's. The contract has no code for
// that, so it comes with the one of a server's fault.
type refused struct{ answer *client.Error }

func (e *refused) Error() string {
	return fmt.Sprintf("refused: %s (HTTP %d)", e.answer.Message, e.answer.HTTPStatus)
}

func (e *refused) Unwrap() error { return e.answer }

func refusal(err error) error {
	if e, ok := errors.AsType[*client.Error](err); ok && !e.UnknownTenant {
		switch e.HTTPStatus {
		case http.StatusForbidden, http.StatusTooManyRequests, http.StatusInsufficientStorage:
			return &refused{e}
		}
	}
	return err
}

func (w wallet) auth() (client.Auth, error) {
	if w.Token != "" {
		return client.Bearer(strings.TrimSpace(w.Token)), nil
	}
	key, err := w.key()
	if err != nil {
		return nil, err
	}
	return client.NewSignatureAuth(key)
}

func (w wallet) key() (key [32]byte, err error) {
	path := w.KeyFile
	if path == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return key, fmt.Errorf("%w; say with --key-file where the wallet's key is", err)
		}
		path = filepath.Join(dir, "vss-cloud", "wallet.key")
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		_, _ = rand.Read(key[:]) // never fails
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return key, err
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // another call may be making it
		if err != nil {
			return key, err
		}
		_, err = fmt.Fprintln(f, hex.EncodeToString(key[:]))
		fmt.Fprintln(os.Stderr, "vssctl: made a new wallet key in", path)
		return key, errors.Join(err, f.Close())
	}
	if err != nil {
		return key, err
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(raw) != len(key) {
		return key, fmt.Errorf("%w: %s does not hold a secret key of 64 hex digits", cli.ErrUsage, path)
	}
	return [32]byte(raw), nil
}

type putCmd struct {
	wallet
	Key           string  `arg:"" help:"The key."`
	Value         *string `arg:"" optional:"" help:"The value, unless --file says where it is."`
	File          string  `placeholder:"FILE" help:"Where the value is read from; - is standard input."`
	Version       int64   `default:"-1" placeholder:"N" help:"Version that the key must have: 0 if it must not exist, -1 for any (${default})."`
	GlobalVersion *int64  `placeholder:"N" help:"Version that the store must have; -1 sets it to 1. Unset: neither checked nor changed."`
}

func (c putCmd) Run(ctx context.Context, out output) error {
	value, err := c.value()
	if err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, cl *client.Client) error {
		_, err := cl.PutObjects(ctx, &vsspb.PutObjectRequest{
			StoreId:          c.StoreID,
			GlobalVersion:    c.GlobalVersion,
			TransactionItems: []*vsspb.KeyValue{{Key: c.Key, Version: c.Version, Value: value}},
		})
		if err != nil {
			return err
		}
		version := c.Version + 1
		if c.Version == -1 {
			version = 1
		}
		return out.print(keyView{c.Key, version}, func(w io.Writer) {
			fmt.Fprintf(w, "saved %s at version %d (%d bytes)\n", c.Key, version, len(value))
		})
	})
}

func (c putCmd) value() ([]byte, error) {
	switch {
	case (c.Value == nil) == (c.File == ""):
		return nil, fmt.Errorf("%w: give either a value or --file", cli.ErrUsage)
	case c.Value != nil:
		return []byte(*c.Value), nil
	case c.File == "-":
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(c.File)
}

type getCmd struct {
	wallet
	Key string `arg:"" help:"The key; global_version for the store's version."`
}

func (c getCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, cl *client.Client) error {
		r, err := cl.GetObject(ctx, &vsspb.GetObjectRequest{StoreId: c.StoreID, Key: c.Key})
		if err != nil {
			return err
		}
		return out.print(struct {
			keyView
			Value []byte `json:"value_base64"`
		}{keyView{c.Key, r.GetValue().GetVersion()}, r.GetValue().GetValue()}, func(w io.Writer) {
			value := r.GetValue().GetValue()
			_, _ = w.Write(value)
			if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) && !bytes.HasSuffix(value, []byte("\n")) {
				fmt.Fprintln(w) // for the prompt
			}
		})
	})
}

type listCmd struct {
	wallet
	Prefix string `arg:"" optional:"" help:"Only keys that begin with this."`
}

type keyView struct {
	Key     string `json:"key"`
	Version int64  `json:"version"`
}

func (c listCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, cl *client.Client) error {
		all, err := cl.ListAll(ctx, &vsspb.ListKeyVersionsRequest{StoreId: c.StoreID, KeyPrefix: &c.Prefix})
		if err != nil {
			return err
		}
		view := struct {
			GlobalVersion int64     `json:"global_version"`
			Keys          []keyView `json:"keys"`
		}{all.GetGlobalVersion(), make([]keyView, len(all.GetKeyVersions()))}
		for i, k := range all.GetKeyVersions() {
			view.Keys[i] = keyView{k.GetKey(), k.GetVersion()}
		}
		return out.print(view, func(w io.Writer) {
			for _, k := range view.Keys {
				fmt.Fprintf(w, "%d\t%s\n", k.Version, k.Key)
			}
		})
	})
}

type deleteCmd struct {
	wallet
	Key     string `arg:"" help:"The key."`
	Version int64  `default:"-1" placeholder:"N" help:"Version that the key must have to be deleted, -1 for any (${default})."`
}

func (c deleteCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, cl *client.Client) error {
		_, err := cl.DeleteObject(ctx, &vsspb.DeleteObjectRequest{
			StoreId:  c.StoreID,
			KeyValue: &vsspb.KeyValue{Key: c.Key, Version: c.Version},
		})
		if err != nil {
			return err
		}
		return out.print(struct{}{}, func(w io.Writer) { fmt.Fprintf(w, "%s is not there, or not at this version, any more\n", c.Key) })
	})
}
