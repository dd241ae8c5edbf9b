-- Dictionaries: what the business names things. `code` is stable English and may appear in metrics
-- and URLs; `name_ru` and `name_en` are display only.
CREATE TABLE cities (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code     text NOT NULL UNIQUE CHECK (code ~ '^[a-z][a-z0-9_]{0,39}$'),
    name_ru  text NOT NULL CHECK (char_length(name_ru) BETWEEN 1 AND 100),
    name_en  text NOT NULL CHECK (char_length(name_en) BETWEEN 1 AND 100),
    timezone text NOT NULL CHECK (timezone ~ '^[A-Za-z_]+(/[A-Za-z0-9_+-]+)*$'),
    active   boolean NOT NULL DEFAULT true
);

CREATE TABLE request_types (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code    text NOT NULL UNIQUE CHECK (code ~ '^[a-z][a-z0-9_]{0,39}$'),
    name_ru text NOT NULL,
    name_en text NOT NULL
);

CREATE TABLE directions (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code    text NOT NULL UNIQUE CHECK (code ~ '^[a-z][a-z0-9_]{0,39}$'),
    name_ru text NOT NULL,
    name_en text NOT NULL
);

CREATE TABLE transaction_types (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code    text NOT NULL UNIQUE CHECK (code ~ '^[a-z][a-z0-9_]{0,39}$'),
    name_ru text NOT NULL,
    name_en text NOT NULL
);

INSERT INTO request_types (code, name_ru, name_en) VALUES
    ('first_time', 'Впервые',  'First-time'),
    ('repeat',     'Повтор',   'Repeat'),
    ('warranty',   'Гарантия', 'Warranty');

INSERT INTO directions (code, name_ru, name_en) VALUES
    ('plumbing',    'Сантехника',         'Plumbing'),
    ('electrics',   'Электрика',          'Electrics'),
    ('appliances',  'Бытовая техника',    'Home appliances'),
    ('electronics', 'Электроника',        'Electronics'),
    ('locks',       'Замки и двери',      'Locks and doors'),
    ('windows',     'Окна',               'Windows'),
    ('computers',   'Компьютеры',         'Computers'),
    ('handyman',    'Мелкий ремонт',      'Handyman');

INSERT INTO transaction_types (code, name_ru, name_en) VALUES
    ('income',   'Приход',               'Income'),
    ('expense',  'Расход',               'Expense'),
    ('reversal', 'Сторно',               'Reversal');

CREATE TABLE advertising_campaigns (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    city_id bigint NOT NULL REFERENCES cities,
    code    text NOT NULL UNIQUE CHECK (code ~ '^[a-z][a-z0-9_]{0,39}$'),
    name    text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
    active  boolean NOT NULL DEFAULT true
);
CREATE INDEX advertising_campaigns_city ON advertising_campaigns (city_id);

-- The advertised numbers ("lines"): the number a client dialled tells the campaign and the city.
CREATE TABLE campaign_numbers (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign_id bigint NOT NULL REFERENCES advertising_campaigns,
    phone_e164  text NOT NULL UNIQUE CHECK (phone_e164 ~ '^\+[1-9][0-9]{6,14}$')
);
CREATE INDEX campaign_numbers_campaign ON campaign_numbers (campaign_id);

CREATE TABLE users (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    login         text NOT NULL CHECK (login ~ '^[a-z0-9][a-z0-9._-]{1,63}$'),
    password_hash text NOT NULL,
    name          text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
    role          text NOT NULL CHECK (role IN ('admin', 'director', 'manager', 'marketer', 'operator', 'master')),
    status        text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled')),
    -- Raised whenever what a token says stops being true (role, cities, password): older tokens die.
    token_version integer NOT NULL DEFAULT 1 CHECK (token_version > 0),
    created_at    timestamptz NOT NULL,
    CONSTRAINT users_login_key UNIQUE (login)
);

CREATE TABLE user_cities (
    user_id bigint NOT NULL REFERENCES users,
    city_id bigint NOT NULL REFERENCES cities,
    PRIMARY KEY (user_id, city_id)
);
CREATE INDEX user_cities_city ON user_cities (city_id);

CREATE TABLE master_profiles (
    user_id bigint PRIMARY KEY REFERENCES users,
    -- The part of a request's net that the master hands over to the company.
    share   numeric(5, 4) NOT NULL CHECK (share BETWEEN 0 AND 1)
);

CREATE TABLE sessions (
    -- 128 random bits, hexadecimal; the `sid` claim of the access token.
    id            text PRIMARY KEY CHECK (id ~ '^[0-9a-f]{32}$'),
    user_id       bigint NOT NULL REFERENCES users,
    token_version integer NOT NULL,
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL CHECK (expires_at > created_at),
    revoked_at    timestamptz
);
CREATE INDEX sessions_user ON sessions (user_id);
