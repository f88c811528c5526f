package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/storage"
)

// Get implements storage.Store. Values up to 64 KiB take one round trip and are not announced to admit.
func (s *Store) Get(ctx context.Context, ks storage.Keyspace, key string, admit storage.Admit) (storage.Object, error) {
	if err := storage.CheckKey(key); err != nil {
		return storage.Object{}, err
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	leave, err := s.enter(ctx, ks, Read)
	if err != nil {
		return storage.Object{}, err
	}
	defer leave()
	return again(ctx, func() (storage.Object, error) { return s.get(ctx, uuid.UUID(ks.Store()), key, admit) })
}

func (s *Store) get(ctx context.Context, store uuid.UUID, key string, admit storage.Admit) (storage.Object, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return storage.Object{}, translate(err)
	}
	defer conn.Release()
	ctx, cancel := uncancelled(ctx)
	defer cancel()

	if key == storage.GlobalVersionKey {
		row, err := s.queries.GetGlobalVersion(ctx, conn, store)
		if err := s.primary(ctx, conn.Conn(), row.Standby, row.Life, err); err != nil {
			return storage.Object{}, err
		}
		return storage.Object{Key: key, Version: row.GlobalVersion}, nil
	}

	row, err := s.queries.GetObject(ctx, conn, dbgen.GetObjectParams{Store: store, Key: key, Inline: inline})
	if err := s.primary(ctx, conn.Conn(), row.Standby, row.Life, err); err != nil {
		return storage.Object{}, err
	}
	if row.Version == nil {
		return storage.Object{}, storage.ErrNoSuchKey
	}
	if *row.Size <= inline {
		return storage.Object{Key: key, Version: *row.Version, Value: row.Value}, nil
	}

	if admit != nil {
		if err := admit(*row.Size); err != nil {
			return storage.Object{}, err
		}
	}
	large, err := s.queries.GetLargeObject(ctx, conn, dbgen.GetLargeObjectParams{Store: store, Key: key, Admitted: *row.Size})
	if errors.Is(err, pgx.ErrNoRows) {
		return storage.Object{}, errReplaced
	}
	if err := s.primary(ctx, conn.Conn(), large.Standby, large.Life, err); err != nil {
		return storage.Object{}, err
	}
	return storage.Object{Key: key, Version: large.Version, Value: large.Value}, nil
}

// errReplaced: between the question for a large value's size and the one for the value, it grew or went.
var errReplaced = errors.Join(storage.ErrUnavailable, errAgain)

// primary passes on the error of a read, or says that it was answered by a server that is no primary, or is not known to
// be the one of now, and gives the connection up. life is the server's.
func (s *Store) primary(ctx context.Context, conn *pgx.Conn, standby bool, life time.Time, err error) error {
	if err := primary(ctx, conn, standby, err); err != nil {
		return err
	}
	err = s.fence.confirm(ctx, life, db.ServerOf(conn).Met)
	if errors.Is(err, errDeposed) {
		_ = conn.Close(ctx)
	}
	return err
}

// primary passes on an error, or says that a standby answered and gives the connection up.
func primary(ctx context.Context, conn *pgx.Conn, standby bool, err error) error {
	if err != nil {
		return translate(err)
	}
	if standby {
		_ = conn.Close(ctx) // the pool replaces it
		return errStandby
	}
	return nil
}

// List implements storage.Store.
func (s *Store) List(ctx context.Context, ks storage.Keyspace, req storage.ListRequest) (storage.Page, error) {
	if err := req.Check(); err != nil {
		return storage.Page{}, err
	}
	before := int64(math.MaxInt64)
	if req.Token != "" {
		var err error
		if before, err = parseToken(ks.Store(), req.Prefix, req.Token); err != nil {
			return storage.Page{}, err
		}
	}
	size := s.maxPageSize
	if req.PageSize != 0 {
		size = min(size, req.PageSize)
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	leave, err := s.enter(ctx, ks, List)
	if err != nil {
		return storage.Page{}, err
	}
	defer leave()

	rows, err := again(ctx, func() ([]dbgen.ListObjectsRow, error) {
		conn, err := s.pool.Acquire(ctx)
		if err != nil {
			return nil, translate(err)
		}
		defer conn.Release()
		ctx, cancel := uncancelled(ctx)
		defer cancel()
		rows, err := s.queries.ListObjects(ctx, conn, dbgen.ListObjectsParams{
			Store:   uuid.UUID(ks.Store()),
			FromKey: req.Prefix,
			ToKey:   afterPrefix(req.Prefix),
			Before:  before,
			Page:    int32(size) + 1, // one more tells whether this page is the last
		})
		if err != nil {
			return nil, translate(err)
		}
		return rows, s.primary(ctx, conn.Conn(), rows[0].Standby, rows[0].Life, nil)
	})
	if err != nil {
		return storage.Page{}, err
	}

	var page storage.Page
	if req.Token == "" {
		global := int64(0)
		if rows[0].GlobalVersion != nil {
			global = *rows[0].GlobalVersion
		}
		page.GlobalVersion = &global
	}
	if rows[0].Key == "" {
		return page, nil
	}
	if len(rows) > size {
		rows = rows[:size]
		page.NextToken = newToken(ks.Store(), req.Prefix, rows[size-1].Position)
	}
	page.Keys = make([]storage.KeyVersion, len(rows))
	for i, row := range rows {
		page.Keys[i] = storage.KeyVersion{Key: row.Key, Version: row.Version}
	}
	return page, nil
}

// A page token is the position of the page's last entry, which stays meaningful when that entry is deleted,
// and a check of the store and prefix it belongs to: a position taken to another list would skip keys.
func newToken(store storage.StoreID, prefix string, position int64) string {
	token := binary.BigEndian.AppendUint64(nil, uint64(position))
	return base64.RawURLEncoding.EncodeToString(append(token, tokenCheck(store, prefix, token)...))
}

func parseToken(store storage.StoreID, prefix, token string) (position int64, err error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) != 16 || string(raw[8:]) != string(tokenCheck(store, prefix, raw[:8])) {
		return 0, storage.ErrBadToken
	}
	return int64(binary.BigEndian.Uint64(raw[:8])), nil
}

func tokenCheck(store storage.StoreID, prefix string, position []byte) []byte {
	h := sha256.New()
	h.Write(store[:])
	h.Write(position)
	h.Write([]byte(prefix))
	return h.Sum(nil)[:8]
}

// afterPrefix is the least string above all keys that begin with prefix, in the byte order of collation
// "C", which for UTF-8 is the order of code points.
func afterPrefix(prefix string) string {
	for prefix != "" {
		last, n := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-n]
		switch last {
		case utf8.MaxRune:
			continue // has no successor; the one before it has
		case 0xD7FF:
			last = 0xE000 // surrogates in between are not characters
		default:
			last++
		}
		return prefix + string(last)
	}
	return strings.Repeat(string(utf8.MaxRune), storage.MaxKeyLength+1) // above every key
}
