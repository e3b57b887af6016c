-- What a shadow's lane holds something behind, one step for each however many are held behind it, and those in order: the
-- sweeper looks at it in turns. (In `delivery` a shadow's lane stands for the client.)
create index delivery_held on delivery (tenant_id, client_id, blocked_by, seq) where state = 'held';
