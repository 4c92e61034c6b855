PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE alias (
	id INTEGER NOT NULL, 
	branch TEXT NOT NULL, 
	name TEXT NOT NULL, 
	alias TEXT NOT NULL, 
	target TEXT NOT NULL, 
	at INTEGER NOT NULL, 
	who TEXT NOT NULL, 
	why TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "alias" VALUES(1,'live-flights','flights','champion','dataset:flights@bbbbbbbbbbbb#bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',5,'loop','first');
INSERT INTO "alias" VALUES(2,'','late','prod','1',1700000011000000,'ann','it passed');
CREATE TABLE artifact (
	digest TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	name TEXT NOT NULL, 
	version TEXT NOT NULL, 
	recorded_at INTEGER NOT NULL, 
	meta TEXT NOT NULL, 
	PRIMARY KEY (digest, kind, name)
);
INSERT INTO "artifact" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','source','a.csv','aaaaaaaaaaaa',1700000002000000,'{"file":"a.csv"}');
INSERT INTO "artifact" VALUES('bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','dataset','flights','bbbbbbbbbbbb',1700000005000000,'{"rows":2}');
CREATE TABLE artifact_file (
	path TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	PRIMARY KEY (path)
)
 WITHOUT ROWID

;
CREATE TABLE branch (
	id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	name TEXT NOT NULL, 
	status TEXT NOT NULL, 
	created_at INTEGER NOT NULL, 
	finished_at INTEGER, 
	parts TEXT NOT NULL, 
	state TEXT NOT NULL, 
	result TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "branch" VALUES('live-flights','live','flights','running',1700000006000000,NULL,'{"model":{"name":"boosted"}}','{"now":7}','{}');
CREATE TABLE decision (
	id INTEGER NOT NULL, 
	branch TEXT NOT NULL, 
	at INTEGER NOT NULL, 
	recorded_at INTEGER NOT NULL, 
	who TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	subject TEXT NOT NULL, 
	why TEXT NOT NULL, 
	evidence TEXT NOT NULL, 
	previous TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "decision" VALUES(1,'live-flights',5,1700000007000000,'loop','promoted','boosted/1','it is better','{"p":0.01}','','583f5fe4eb88ba27eed52d5ce9cc63ac7c7ffd91');
CREATE TABLE edge (
	execution INTEGER NOT NULL, 
	role TEXT NOT NULL, 
	parent TEXT NOT NULL, 
	child TEXT NOT NULL, 
	PRIMARY KEY (execution, role, parent, child)
);
INSERT INTO "edge" VALUES(1,'sources','source:a.csv@aaaaaaaaaaaa','dataset:flights@bbbbbbbbbbbb');
CREATE TABLE execution (
	id INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	name TEXT NOT NULL, 
	branch TEXT NOT NULL, 
	status TEXT NOT NULL, 
	started_at INTEGER NOT NULL, 
	ended_at INTEGER, 
	pid INTEGER NOT NULL, 
	inputs TEXT NOT NULL, 
	outputs TEXT NOT NULL, 
	params TEXT NOT NULL, 
	metrics TEXT NOT NULL, 
	code TEXT NOT NULL, 
	environment TEXT NOT NULL, 
	error TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "execution" VALUES(1,'b8b3bcdffba35e10614deac7826ade230c8c63b3','dataset','flights','','finished',1700000003000000,1700000004000000,2818,'{"sources":"source:a.csv#aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}','{"version":{"digest":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","kind":"dataset","name":"flights","version":"bbbbbbbbbbbb"}}','{}','{"rows":2}','','159fbec5a2635083aac160d2de203d40249746d3','');
INSERT INTO "execution" VALUES(2,'','run','first','','finished',1700000000000000,1700000100000000,0,'{}','{}','{}','{}','','','');
CREATE TABLE experiment (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	location TEXT NOT NULL, 
	stage TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "experiment" VALUES(0,'Default','mlflow-artifacts:/0','active',1700000001000,1700000001000);
INSERT INTO "experiment" VALUES(1,'trials','mlflow-artifacts:/1','active',1700000008000,1700000008000);
CREATE TABLE experiment_tag (
	experiment INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (experiment, "key")
)
 WITHOUT ROWID

;
INSERT INTO "experiment_tag" VALUES(1,'team','ops');
CREATE TABLE logged_model (
	id TEXT NOT NULL, 
	experiment INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	type TEXT NOT NULL, 
	run TEXT NOT NULL, 
	status TEXT NOT NULL, 
	message TEXT NOT NULL, 
	location TEXT NOT NULL, 
	stage TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE logged_model_metric (
	model TEXT NOT NULL, 
	name TEXT NOT NULL, 
	timestamp BIGINT NOT NULL, 
	step BIGINT NOT NULL, 
	run TEXT NOT NULL, 
	value FLOAT NOT NULL, 
	nan INTEGER NOT NULL, 
	dataset TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	PRIMARY KEY (model, name, timestamp, step, run)
);
CREATE TABLE logged_model_param (
	model TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (model, "key")
)
 WITHOUT ROWID

;
CREATE TABLE logged_model_tag (
	model TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (model, "key")
)
 WITHOUT ROWID

;
CREATE TABLE metric (
	run INTEGER NOT NULL, 
	name INTEGER NOT NULL, 
	timestamp BIGINT NOT NULL, 
	step BIGINT NOT NULL, 
	value FLOAT NOT NULL, 
	nan INTEGER NOT NULL, 
	PRIMARY KEY (run, name, timestamp, step, value, nan)
)
 WITHOUT ROWID

;
INSERT INTO "metric" VALUES(2,1,1,1,0.5,0);
INSERT INTO "metric" VALUES(2,1,2,2,0.0,1);
INSERT INTO "metric" VALUES(2,2,3,3,0.75,0);
CREATE TABLE metric_latest (
	run INTEGER NOT NULL, 
	name INTEGER NOT NULL, 
	experiment INTEGER NOT NULL, 
	value FLOAT NOT NULL, 
	nan INTEGER NOT NULL, 
	step BIGINT NOT NULL, 
	timestamp BIGINT NOT NULL, 
	PRIMARY KEY (run, name)
)
 WITHOUT ROWID

;
INSERT INTO "metric_latest" VALUES(2,1,1,0.0,1,2,2);
INSERT INTO "metric_latest" VALUES(2,2,1,0.75,0,3,3);
CREATE TABLE metric_name (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "metric_name" VALUES(1,'loss');
INSERT INTO "metric_name" VALUES(2,'auc');
CREATE TABLE model_version (
	branch TEXT NOT NULL, 
	name TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	at INTEGER NOT NULL, 
	verdict TEXT NOT NULL, 
	PRIMARY KEY (branch, name, number)
);
CREATE TABLE param (
	run INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (run, "key")
)
 WITHOUT ROWID

;
INSERT INTO "param" VALUES(2,'depth','6');
CREATE TABLE prediction_segment (
	branch TEXT NOT NULL, 
	deployment TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	rows INTEGER NOT NULL, 
	first_at INTEGER NOT NULL, 
	last_at INTEGER NOT NULL, 
	PRIMARY KEY (branch, deployment, number)
);
CREATE TABLE registered_model (
	name TEXT NOT NULL, 
	description TEXT NOT NULL, 
	job TEXT NOT NULL, 
	newest INTEGER NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "registered_model" VALUES('late','of flights','',1,1700000009000,1700000012000);
CREATE TABLE registered_model_tag (
	name TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (name, "key")
);
CREATE TABLE registered_version (
	name TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	description TEXT NOT NULL, 
	who TEXT NOT NULL, 
	stage TEXT NOT NULL, 
	source TEXT NOT NULL, 
	location TEXT NOT NULL, 
	run TEXT NOT NULL, 
	run_link TEXT NOT NULL, 
	model TEXT NOT NULL, 
	status TEXT NOT NULL, 
	message TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (name, number)
);
INSERT INTO "registered_version" VALUES('late',1,'','','None','runs:/496722b160a14d458d8a9c31f98a7e1c/model','mlflow-artifacts:/1/496722b160a14d458d8a9c31f98a7e1c/artifacts/model','496722b160a14d458d8a9c31f98a7e1c','','','READY','',1700000010000,1700000010000);
CREATE TABLE registered_version_tag (
	name TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (name, number, "key")
);
CREATE TABLE run (
	execution INTEGER NOT NULL, 
	uid TEXT NOT NULL, 
	experiment INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	who TEXT NOT NULL, 
	stage TEXT NOT NULL, 
	started_at BIGINT NOT NULL, 
	location TEXT NOT NULL, 
	deleted_at BIGINT, 
	PRIMARY KEY (execution), 
	UNIQUE (uid)
);
INSERT INTO "run" VALUES(2,'496722b160a14d458d8a9c31f98a7e1c',1,'first','ann','active',1700000000000,'mlflow-artifacts:/1/496722b160a14d458d8a9c31f98a7e1c/artifacts',NULL);
CREATE TABLE run_dataset (
	id INTEGER NOT NULL, 
	experiment INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	source_type TEXT NOT NULL, 
	source TEXT NOT NULL, 
	schema TEXT, 
	profile TEXT, 
	PRIMARY KEY (id)
);
CREATE TABLE run_input (
	run INTEGER NOT NULL, 
	dataset INTEGER NOT NULL, 
	tags TEXT NOT NULL, 
	context TEXT NOT NULL, 
	PRIMARY KEY (run, dataset)
);
CREATE TABLE run_model (
	run INTEGER NOT NULL, 
	model TEXT NOT NULL, 
	role TEXT NOT NULL, 
	step BIGINT NOT NULL, 
	PRIMARY KEY (run, model, role)
);
CREATE TABLE tag (
	run INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (run, "key")
)
 WITHOUT ROWID

;
INSERT INTO "tag" VALUES(2,'mlflow.runName','first');
INSERT INTO "tag" VALUES(2,'why','größer');
CREATE TABLE trace (
	id TEXT NOT NULL, 
	experiment INTEGER NOT NULL, 
	client_id TEXT NOT NULL, 
	requested_at BIGINT NOT NULL, 
	took BIGINT, 
	state TEXT NOT NULL, 
	request TEXT NOT NULL, 
	response TEXT NOT NULL, 
	assessments TEXT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE trace_metadata (
	trace TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (trace, "key")
)
 WITHOUT ROWID

;
CREATE TABLE trace_tag (
	trace TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (trace, "key")
)
 WITHOUT ROWID

;
CREATE INDEX artifact_by_name ON artifact (kind, name, version);
CREATE INDEX execution_by_key ON execution ("key", status);
CREATE INDEX execution_by_name ON execution (kind, name, id);
CREATE INDEX edge_by_child ON edge (child);
CREATE INDEX alias_by_name ON alias (branch, name, alias, id);
CREATE INDEX decision_by_branch ON decision (branch, id);
CREATE INDEX run_by_start ON run (experiment, started_at DESC, uid);
CREATE INDEX param_by_value ON param ("key", substr(value, 1, 64), run);
CREATE INDEX tag_by_value ON tag ("key", substr(value, 1, 64), run);
CREATE INDEX latest_by_value ON metric_latest (experiment, name, nan, value, run);
CREATE UNIQUE INDEX dataset_by_name ON run_dataset (experiment, name, digest);
CREATE INDEX logged_model_by_experiment ON logged_model (experiment, created_at);
CREATE INDEX trace_by_time ON trace (experiment, requested_at DESC, id);
CREATE INDEX registered_version_by_run ON registered_version (run);
COMMIT;
