-- People have contact data, a version for If-Match, and go without leaving a hole: what they did
-- refers to them for ever, so a deleted user is a disabled one that nobody sees any more.
ALTER TABLE users
    ADD COLUMN phone_e164 text CHECK (phone_e164 ~ '^\+[1-9][0-9]{6,14}$'),
    ADD COLUMN email      text CHECK (char_length(email) <= 254 AND email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
    ADD COLUMN version    integer NOT NULL DEFAULT 1 CHECK (version > 0),
    ADD COLUMN deleted_at timestamptz,
    ADD CONSTRAINT users_deleted_is_disabled CHECK (deleted_at IS NULL OR status = 'disabled');
-- A phone is free again when its user is gone; a login stays taken, so that the history names one person.
CREATE UNIQUE INDEX users_phone_key ON users (phone_e164) WHERE deleted_at IS NULL;
CREATE INDEX users_newest ON users (created_at DESC, id DESC) WHERE deleted_at IS NULL;

-- Sealed by the application (src/users/passport.rs): scheme, fingerprint of the key, nonce and ciphertext.
ALTER TABLE master_profiles
    ADD COLUMN passport text CHECK (passport ~ '^v1\.[0-9a-f]{8}\.[A-Za-z0-9_-]+$' AND char_length(passport) <= 3000);

-- Entries of dictionaries are changed over the API now. Their code is what metrics, URLs and other
-- systems know them by: it never changes.
ALTER TABLE cities
    ADD COLUMN version integer NOT NULL DEFAULT 1 CHECK (version > 0);
ALTER TABLE request_types
    ADD COLUMN active  boolean NOT NULL DEFAULT true,
    ADD COLUMN version integer NOT NULL DEFAULT 1 CHECK (version > 0),
    ADD CHECK (char_length(name_ru) BETWEEN 1 AND 100),
    ADD CHECK (char_length(name_en) BETWEEN 1 AND 100);
ALTER TABLE directions
    ADD COLUMN active  boolean NOT NULL DEFAULT true,
    ADD COLUMN version integer NOT NULL DEFAULT 1 CHECK (version > 0),
    ADD CHECK (char_length(name_ru) BETWEEN 1 AND 100),
    ADD CHECK (char_length(name_en) BETWEEN 1 AND 100);
ALTER TABLE transaction_types
    ADD COLUMN active  boolean NOT NULL DEFAULT true,
    ADD COLUMN version integer NOT NULL DEFAULT 1 CHECK (version > 0),
    -- Whether such a transaction brings money in or takes it out.
    ADD COLUMN sign    smallint CHECK (sign IN (-1, 1)),
    ADD CHECK (char_length(name_ru) BETWEEN 1 AND 100),
    ADD CHECK (char_length(name_en) BETWEEN 1 AND 100);
UPDATE transaction_types SET sign = CASE code WHEN 'income' THEN 1 WHEN 'expense' THEN -1 END;
ALTER TABLE transaction_types
    -- A reversal has the sign that its original has not.
    ADD CONSTRAINT transaction_types_sign CHECK ((code = 'reversal') = (sign IS NULL)),
    -- The ledger itself writes these.
    ADD CONSTRAINT transaction_types_ledger_stays CHECK (active OR code NOT IN ('income', 'expense', 'reversal'));
ALTER TABLE advertising_campaigns
    ADD COLUMN version integer NOT NULL DEFAULT 1 CHECK (version > 0);

CREATE FUNCTION forbid_code_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the code of % never changes', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER cities_code_stays BEFORE UPDATE OF code ON cities
    FOR EACH ROW WHEN (OLD.code IS DISTINCT FROM NEW.code) EXECUTE FUNCTION forbid_code_change();
CREATE TRIGGER request_types_code_stays BEFORE UPDATE OF code ON request_types
    FOR EACH ROW WHEN (OLD.code IS DISTINCT FROM NEW.code) EXECUTE FUNCTION forbid_code_change();
CREATE TRIGGER directions_code_stays BEFORE UPDATE OF code ON directions
    FOR EACH ROW WHEN (OLD.code IS DISTINCT FROM NEW.code) EXECUTE FUNCTION forbid_code_change();
CREATE TRIGGER transaction_types_code_stays BEFORE UPDATE OF code ON transaction_types
    FOR EACH ROW WHEN (OLD.code IS DISTINCT FROM NEW.code) EXECUTE FUNCTION forbid_code_change();
CREATE TRIGGER advertising_campaigns_code_stays BEFORE UPDATE OF code ON advertising_campaigns
    FOR EACH ROW WHEN (OLD.code IS DISTINCT FROM NEW.code) EXECUTE FUNCTION forbid_code_change();
