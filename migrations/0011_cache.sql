-- How new what may be cached is (src/cache): one row for each domain of things. Whoever changes a table that a domain
-- is made of raises its version, in the same transaction: by the API, by an import or by hand.
CREATE TABLE cache_versions (
    name    text PRIMARY KEY,
    version bigint NOT NULL
);

-- Microseconds since 1970, or one more than before: a database that was restored, or that took over without its
-- newest changes, must not give out a version again under which something else is cached.
INSERT INTO cache_versions (name, version)
SELECT name, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM unnest(ARRAY['dictionaries', 'users']) AS name;

CREATE FUNCTION raise_cache_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE cache_versions
       SET version = GREATEST(version + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
     WHERE name = TG_ARGV[0];
    RETURN NULL;
END $$;

-- The row is locked until the transaction ends, so that versions become visible in their order, and whoever has read a
-- version sees everything up to it. Writers of one domain therefore wait for each other; none of them is hurried.
-- BEFORE each statement, not after: a transaction then has the version's row before it has any row or key of these
-- tables that another could be waiting for, and two writers cannot wait for each other in a circle. Whoever writes to
-- both domains in one transaction begins with the dictionaries.
CREATE TRIGGER cities_are_cached BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON cities
    FOR EACH STATEMENT EXECUTE FUNCTION raise_cache_version('dictionaries');
CREATE TRIGGER request_types_are_cached BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON request_types
    FOR EACH STATEMENT EXECUTE FUNCTION raise_cache_version('dictionaries');
CREATE TRIGGER directions_are_cached BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON directions
    FOR EACH STATEMENT EXECUTE FUNCTION raise_cache_version('dictionaries');
CREATE TRIGGER transaction_types_are_cached BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON transaction_types
    FOR EACH STATEMENT EXECUTE FUNCTION raise_cache_version('dictionaries');
CREATE TRIGGER advertising_campaigns_are_cached BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON advertising_campaigns
    FOR EACH STATEMENT EXECUTE FUNCTION raise_cache_version('dictionaries');
CREATE TRIGGER campaign_numbers_are_cached BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON campaign_numbers
    FOR EACH STATEMENT EXECUTE FUNCTION raise_cache_version('dictionaries');

-- Of a user, what lists show: a new password or a sign-in waits for nobody. The codes of cities, which lists show too,
-- never change.
CREATE TRIGGER users_are_cached
    BEFORE INSERT OR DELETE OR TRUNCATE
        OR UPDATE OF id, version, login, name, phone_e164, email, role, status, created_at, deleted_at ON users
    FOR EACH STATEMENT EXECUTE FUNCTION raise_cache_version('users');
CREATE TRIGGER user_cities_are_cached BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON user_cities
    FOR EACH STATEMENT EXECUTE FUNCTION raise_cache_version('users');
CREATE TRIGGER master_profiles_are_cached BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON master_profiles
    FOR EACH STATEMENT EXECUTE FUNCTION raise_cache_version('users');
