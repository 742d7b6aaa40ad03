CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE blobs (
	partition INTEGER NOT NULL, 
	conversation TEXT NOT NULL, 
	digest BLOB NOT NULL, 
	data BLOB NOT NULL, 
	CONSTRAINT pk_blobs PRIMARY KEY (partition, conversation, digest)
);
CREATE TABLE calls (
	partition INTEGER NOT NULL, 
	conversation TEXT NOT NULL, 
	call TEXT NOT NULL, 
	turn TEXT, 
	name TEXT, 
	kind TEXT NOT NULL, 
	status TEXT NOT NULL, 
	item_version BIGINT NOT NULL, 
	time BIGINT NOT NULL, 
	CONSTRAINT pk_calls PRIMARY KEY (partition, conversation, call)
);
CREATE TABLE context (
	partition INTEGER NOT NULL, 
	conversation TEXT NOT NULL, 
	ordinal BIGINT NOT NULL, 
	from_version BIGINT NOT NULL, 
	to_version BIGINT, 
	holder TEXT, 
	item_version BIGINT, 
	"key" TEXT, 
	item_id TEXT, 
	call_id TEXT, 
	response_id TEXT, 
	CONSTRAINT pk_context PRIMARY KEY (partition, conversation, ordinal, from_version)
);
CREATE TABLE conversations (
	partition INTEGER NOT NULL, 
	id TEXT NOT NULL, 
	version BIGINT NOT NULL, 
	hash BLOB NOT NULL, 
	head BLOB NOT NULL, 
	head_format INTEGER NOT NULL, 
	epoch BIGINT NOT NULL, 
	owner TEXT, 
	status TEXT NOT NULL, 
	agent TEXT, 
	model TEXT, 
	turn TEXT, 
	metadata BLOB NOT NULL, 
	items BIGINT NOT NULL, 
	turns BIGINT NOT NULL, 
	created BIGINT NOT NULL, 
	updated BIGINT NOT NULL, 
	fork_of TEXT, 
	fork_version BIGINT, 
	base BIGINT NOT NULL, 
	CONSTRAINT pk_conversations PRIMARY KEY (partition, id)
);
CREATE TABLE events (
	partition INTEGER NOT NULL, 
	conversation TEXT NOT NULL, 
	version BIGINT NOT NULL, 
	position BIGINT NOT NULL, 
	id TEXT NOT NULL, 
	tag TEXT NOT NULL, 
	schema INTEGER NOT NULL, 
	time BIGINT NOT NULL, 
	actor TEXT NOT NULL, 
	turn TEXT, 
	epoch BIGINT, 
	salt BLOB, 
	body BLOB, 
	body_digest BLOB NOT NULL, 
	hash BLOB NOT NULL, 
	CONSTRAINT pk_events PRIMARY KEY (partition, conversation, version), 
	CONSTRAINT uq_events_position UNIQUE (partition, position)
);
CREATE TABLE meta (
	name TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_meta PRIMARY KEY (name)
);
CREATE TABLE owners (
	owner TEXT NOT NULL, 
	beat BIGINT NOT NULL, 
	CONSTRAINT pk_owners PRIMARY KEY (owner)
);
CREATE TABLE turns (
	partition INTEGER NOT NULL, 
	conversation TEXT NOT NULL, 
	turn TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	started BIGINT NOT NULL, 
	time BIGINT NOT NULL, 
	ended BIGINT, 
	outcome TEXT, 
	state BLOB, 
	state_format INTEGER, 
	CONSTRAINT pk_turns PRIMARY KEY (partition, conversation, turn)
);
CREATE INDEX ix_context_call_id ON context (partition, call_id, conversation) WHERE call_id IS NOT NULL;
CREATE INDEX ix_context_item_id ON context (partition, item_id, conversation) WHERE item_id IS NOT NULL;
CREATE INDEX ix_context_key ON context (partition, "key", conversation) WHERE key IS NOT NULL;
CREATE INDEX ix_conversations_owner ON conversations (partition, owner) WHERE owner IS NOT NULL;
CREATE INDEX ix_conversations_status ON conversations (partition, status, id) WHERE status <> 'idle';
CREATE INDEX ix_turns_key ON turns (partition, "key", conversation);
CREATE INDEX ix_turns_started ON turns (partition, conversation, started);
