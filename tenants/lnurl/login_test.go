package lnurl

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// Logins made by other implementations, all with nonces by RFC 6979, and verified by a third (OpenSSL).
const (
	// The one of vss-client's own test, in all its versions.
	clientK1  = "e2af6254a8df433264fa23f67eb8188635d15ce883e8fc020989d5f82ae6f11e"
	clientSig = "3045022100a75df468de452e618edb8030016eb0894204655c7d93ece1be007fcf36843522022048bc2f00a0a5a30601d274b49cfaf9ef4c76176e5401d0dfb195f5d6ab8ab4c4"
	clientKey = "02d9eb1b467517d685e3b5439082c14bb1a2c9ae672df4d9046d208c193a5846e0"

	// Of plain integers, for the private keys 1, 2 and order-1.
	countingK1 = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	keyOne     = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
	sigOne     = "3045022100a951b0cf98bd51c614c802a65a418fa42482dc5c45c9394e39c0d98773c51cd5022030104fdc36d91582b5757e1de73d982e803cc14d75e82c65daf924e38d27d834"
	keyTwo     = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5"
	sigTwo     = "3045022100898c06781eb9e6128f558af24c9bf9ba5b7a08f77a9364f806709ebf506b4e9f0220262a38ab4def8e45fd01ce187f0b1f092c86a7ef022f0b6261956cc6d2184971"
	keyLast    = "0379be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
	sigLast    = "30450221008c16d5a1276d60c585f5db93d37c5326b67f66d170c00f1534361e2582589e5402201a831bb6d1e01c2137a7c040447d6aaae97de827a14a88cb5b62c010bdc1cf55"
)

// The parts of sigOne.
const (
	rOne = "a951b0cf98bd51c614c802a65a418fa42482dc5c45c9394e39c0d98773c51cd5" // its highest bit is set
	sOne = "30104fdc36d91582b5757e1de73d982e803cc14d75e82c65daf924e38d27d834"
)

const (
	groupOrder   = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
	orderLessOne = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140"
	halfOrder    = "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0"
	halfAndOne   = "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a1"
	zero         = "0000000000000000000000000000000000000000000000000000000000000000"
)

// tlv is what DER makes of a tag and hex, whether it may or not.
func tlv(tag, content string) string {
	return tag + hex.EncodeToString([]byte{byte(len(content) / 2)}) + content
}

func integer(content string) string  { return tlv("02", content) }
func sequence(content string) string { return tlv("30", content) }

func mustK1(t testing.TB, s string) K1 {
	t.Helper()
	k1, err := parseK1(s)
	if err != nil {
		t.Fatal(err)
	}
	return k1
}

func mixedCase(s string) string {
	b := []byte(s)
	for i := range b {
		if i%3 == 0 {
			b[i] = strings.ToUpper(s)[i]
		}
	}
	return string(b)
}

func TestGoldenLogins(t *testing.T) {
	t.Parallel()
	for _, v := range []struct{ name, k1, sig, key, subject string }{
		{"vss-client's", clientK1, clientSig, clientKey, clientKey},
		{"key 1", countingK1, sigOne, keyOne, keyOne},
		{"key 2", countingK1, sigTwo, keyTwo, keyTwo},
		{"last key", countingK1, sigLast, keyLast, keyLast},
		{
			"k1 is zero", zero,
			"3045022100a0b37f8fba683cc68f6574cd43b39f0343a50008bf6ccea9d13231d9e7e2e1e4022011edc8d307254296264aebfc3dc76cd8b668373a072fd64665b50000e9fcce52",
			keyOne, keyOne,
		},
		{
			"k1 is over the order", strings.Repeat("f", 64),
			"304402207cb38cc5712e9e11a767615f6080dbc111c9cdd613eb98999fd92a86bafd454002207923ca1f4d03471d2866f776ef8a6d3cac099b427331aeb245aa9dafeddcf115",
			keyOne, keyOne,
		},
		{
			"s has 31 bytes", "81670a3a4a7beca59a7dd414c7789ea41acd190d6efe80debe4f3fb24b9a123b",
			"304302203d571fbbb458b15fdf3e492de15e8c1506e1f78dbe92c6e6f7b4b8e11a62c00c021f175f28eba4faf6eb52ee1c1e8a4a2dc066f0e84eb5a46020f2ae39327fca9b",
			keyOne, keyOne,
		},
		{"upper-case hex", countingK1, strings.ToUpper(sigOne), strings.ToUpper(keyOne), keyOne},
		{"mixed-case hex", countingK1, mixedCase(sigOne), mixedCase(keyOne), keyOne},
	} {
		if subject, err := VerifyLogin(mustK1(t, v.k1), v.sig, v.key); err != nil || subject != v.subject {
			t.Errorf("%s: got %q, %v; want %q", v.name, subject, err, v.subject)
		}
	}
}

func TestAnRWhosePointLiesBeyondTheOrderIsTaken(t *testing.T) {
	t.Parallel()
	// The point of the nonce has the x coordinate order+2, so r is 2. Nobody knows the nonce: s and k1 were
	// chosen, and the key computed from them.
	const key = "03995afa7d4dec8b0d3ff46caf4c4a15972c0f7722f343b9b0f8d6d0ea7b5bb81a"
	sig := sequence(integer("02") + integer("3039"))
	if subject, err := VerifyLogin(sha256.Sum256([]byte("x")), sig, key); err != nil || subject != key {
		t.Errorf("got %q, %v", subject, err)
	}
}

func TestTheSignatureIsOverK1ItselfAndNotItsHash(t *testing.T) {
	t.Parallel()
	key := secp256k1.PrivKeyFromBytes([]byte{1})
	k1 := mustK1(t, countingK1)
	hash := sha256.Sum256(k1[:])
	text := sha256.Sum256([]byte(k1.String()))
	for _, signed := range [][32]byte{hash, text} {
		_, err := VerifyLogin(k1, hex.EncodeToString(ecdsa.Sign(key, signed[:]).Serialize()), keyOne)
		wantRefusal(t, err, reasonMismatch)
	}
}

func TestLoginsThatAreRefused(t *testing.T) {
	t.Parallel()
	r, s := integer("00"+rOne), integer(sOne)
	if sequence(r+s) != sigOne {
		t.Fatal("the parts are not of the whole")
	}
	negated := func(s string) string {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		var n secp256k1.ModNScalar
		n.SetByteSlice(b)
		high := n.Negate().Bytes()
		return hex.EncodeToString(high[:])
	}
	for _, v := range []struct{ name, sig, key, reason string }{
		{"another key's", sigTwo, keyOne, reasonMismatch},
		{"the same x, the other y", sigOne, keyLast, reasonMismatch},
		{"another k1's", clientSig, clientKey, reasonMismatch},
		{"s for r too", sequence(s + s), keyOne, reasonMismatch},
		{"r and s are 1", sequence(integer("01") + integer("01")), keyOne, reasonMismatch},
		{"s is half the order", sequence(r + integer(halfOrder)), keyOne, reasonMismatch},

		{"r and s exchanged", sequence(s + r), keyOne, reasonSigHighS},
		{"high s", sequence(r + integer("00"+negated(sOne))), keyOne, reasonSigHighS},
		{"s is half the order and one", sequence(r + integer(halfAndOne)), keyOne, reasonSigHighS},
		{"s is the order less one", sequence(r + integer("00"+orderLessOne)), keyOne, reasonSigHighS},

		{"empty", "", keyOne, reasonSigDER},
		{"compact", rOne + sOne, keyOne, reasonSigDER},
		{"no sequence", r + s, keyOne, reasonSigDER},
		{"a set", tlv("31", r+s), keyOne, reasonSigDER},
		{"the empty sequence", sequence(""), keyOne, reasonSigDER},
		{"one integer", sequence(r), keyOne, reasonSigDER},
		{"three integers", sequence(integer("01") + integer("01") + integer("01")), keyOne, reasonSigDER},
		{"a bit string for r", sequence(tlv("03", "00"+rOne) + s), keyOne, reasonSigDER},
		{"a bit string for s", sequence(r + tlv("03", sOne)), keyOne, reasonSigDER},
		{"the sequence too long", "3046" + r + s, keyOne, reasonSigDER},
		{"the sequence too short", "3044" + r + s, keyOne, reasonSigDER},
		{"a length in two bytes", "308145" + r + s, keyOne, reasonSigDER},
		{"an open length", "3080" + r + s + "0000", keyOne, reasonSigDER},
		{"r's length in two bytes", sequence("028121" + "00" + rOne + s), keyOne, reasonSigDER},
		{"r reaches into s", sequence("0222" + "00" + rOne + s), keyOne, reasonSigDER},
		{"r reaches beyond the end", sequence("027f" + "00" + rOne + s), keyOne, reasonSigDER},
		{"s reaches beyond the end", sequence(r + "0221" + sOne), keyOne, reasonSigDER},
		{"something after s", sequence(r + s + "00"), keyOne, reasonSigDER},
		{"something after the sequence", sigOne + "00", keyOne, reasonSigDER},
		{"the type of hash of a transaction", sigOne + "01", keyOne, reasonSigDER},
		{"cut", sigOne[:len(sigOne)-2], keyOne, reasonSigDER},
		{"r is negative", sequence(integer(rOne) + s), keyOne, reasonSigDER},
		{"s is negative", sequence(r + integer("b0"+sOne[2:])), keyOne, reasonSigDER},
		{"r is padded", sequence(integer("0000"+rOne) + s), keyOne, reasonSigDER},
		{"s is padded", sequence(r + integer("00"+sOne)), keyOne, reasonSigDER},
		{"r has no bytes", sequence(integer("") + s), keyOne, reasonSigDER},
		{"s has no bytes", sequence(r + integer("")), keyOne, reasonSigDER},
		{"r is zero", sequence(integer("00") + s), keyOne, reasonSigDER},
		{"s is zero", sequence(r + integer("00")), keyOne, reasonSigDER},
		{"r is the order", sequence(integer("00"+groupOrder) + s), keyOne, reasonSigDER},
		{"s is the order", sequence(r + integer("00"+groupOrder)), keyOne, reasonSigDER},
		{"r is all ones", sequence(integer("00"+strings.Repeat("f", 64)) + s), keyOne, reasonSigDER},
		{"r has 33 bytes and is positive", sequence(integer("01"+rOne) + s), keyOne, reasonSigDER},

		{"an odd digit", sigOne[1:], keyOne, reasonSigHex},
		{"0x", "0x" + sigOne, keyOne, reasonSigHex},
		{"a letter that is no hex", "g" + sigOne[1:], keyOne, reasonSigHex},
		{"a space", sigOne + " ", keyOne, reasonSigHex},
		{"base64", "MEUCIQCpUbDPmL1RxhTIAqZaQY+kJILcXEXJOU45wNmHc8Uc1QIgMBBP3DbZFYK1dX4d5z2YLoA8wU116CxlnvkuONJ9g0", keyOne, reasonSigHex},
		{"73 bytes", strings.Repeat("30", maxSigSize+1), keyOne, reasonSigDER},

		{"no key", sigOne, "", reasonKeyHex},
		{"an x-only key", sigOne, keyOne[2:], reasonKeyHex},
		{"an uncompressed key", sigOne, "04" + keyOne[2:] + "483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8", reasonKeyHex},
		{"a key of 34 bytes", sigOne, keyOne + "00", reasonKeyHex},
		{"a key that is not hex", sigOne, "0g" + keyOne[2:], reasonKeyHex},
		{"prefix of an uncompressed key", sigOne, "04" + keyOne[2:], reasonKeyForm},
		{"prefix of a hybrid key", sigOne, "06" + keyOne[2:], reasonKeyForm},
		{"prefix zero", sigOne, "00" + keyOne[2:], reasonKeyForm},
		{"x is not on the curve", sigOne, "02" + zero[:62] + "05", reasonKeyCurve},
		{"x is zero", sigOne, "02" + zero, reasonKeyCurve},
		{"x is not in the field", sigOne, "02" + strings.Repeat("f", 64), reasonKeyCurve},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			subject, err := VerifyLogin(mustK1(t, countingK1), v.sig, v.key)
			wantRefusal(t, err, v.reason)
			if subject != "" {
				t.Errorf("a refused login names the subject %q", subject)
			}
		})
	}
}

func FuzzParseSignature(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string) {
		sig, err := parseSignature(s)
		if err != nil {
			switch err.Error() {
			case reasonSigHex, reasonSigDER, reasonSigHighS:
			default:
				t.Errorf("got %v", err)
			}
			return
		}
		// There is one text for a signature, but for the case of its hex.
		if canonical := hex.EncodeToString(sig.Serialize()); strings.ToLower(s) != canonical {
			t.Errorf("%q was read as %q", s, canonical)
		}
	})
}

func BenchmarkVerifyLogin(b *testing.B) {
	k1 := mustK1(b, countingK1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := VerifyLogin(k1, sigOne, keyOne); err != nil {
			b.Fatal(err)
		}
	}
}
