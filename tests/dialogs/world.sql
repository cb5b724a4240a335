-- Whom the dialogs know: plain rows, as any tool may write them.
-- :uid, :gid and :mail (where homes lie) are filled in by the test.

INSERT INTO rcpthosts (host) VALUES
    ('example.com'), ('caught.example'), ('iain.cx'), ('müller.example');

INSERT INTO mailbox (username, uid, gid, home, password, password_type) VALUES
    ('iain@example.com',     :uid, :gid, ':mail/iain',     'secret', 'Password'),
    ('ann@example.com',      :uid, :gid, ':mail/ann',      'secret', 'Password'),
    ('jürgen@example.com',   :uid, :gid, ':mail/jürgen',   'geheim', 'Password'),
    ('john doe@example.com', :uid, :gid, ':mail/john doe', 'secret', 'Password'),
    ('uwe@müller.example',   :uid, :gid, ':mail/uwe',      'secret', 'Password'),
    -- The overview's own example: a user without a domain.
    ('iain',                 :uid, :gid, ':mail/old',      'secret', 'Password');

INSERT INTO virtual (username, virtual_username, virtual_host) VALUES
    ('iain@example.com',     'iain',       'example.com'),
    ('ann@example.com',      'ann',        'example.com'),
    ('jürgen@example.com',   'jürgen',     'example.com'),
    ('john doe@example.com', 'john doe',   'example.com'),
    ('iain@example.com',     'postmaster', 'mx.example.com'),
    ('uwe@müller.example',   'uwe',        'müller.example'),
    ('team@müller.example',  'team',       'müller.example'),
    ('ann@example.com',      '',           'caught.example'),
    ('iain@example.com',     'iain',       'caught.example'),
    ('iain',                 'example',    'babasse.com'),
    -- Aliases: virtual names who they are, alias what is to be done.
    ('sales@example.com',    'sales',      'example.com'),
    ('all@example.com',      'all',        'example.com'),
    ('mixed@example.com',    'mixed',      'example.com'),
    ('round@example.com',    'round',      'example.com'),
    ('about@example.com',    'about',      'example.com'),
    ('dead@example.com',     'dead',       'example.com');

INSERT INTO alias (username, alias, alias_username, alias_host) VALUES
    ('alias', 'sales@example.com', 'iain',  'example.com'),
    ('alias', 'sales@example.com', 'ann',   'example.com'),
    ('alias', 'all@example.com',   'sales', 'example.com'),
    ('alias', 'mixed@example.com', 'ann',   'example.com'),
    ('alias', 'mixed@example.com', 'far',   'elsewhere.test'),
    ('alias', 'team@müller.example', 'uwe', 'xn--mller-kva.example'),
    ('alias', 'round@example.com', 'about', 'example.com'),
    ('alias', 'round@example.com', 'ann',   'example.com'),
    ('alias', 'about@example.com', 'round', 'example.com'),
    ('alias', 'dead@example.com',  'gone',  'example.com');
