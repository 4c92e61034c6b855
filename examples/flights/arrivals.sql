-- `arr_time` is the clock of the destination (hhmm). It is the first such time after the departure, read in that time zone.
-- Four destinations are missing from `airports`; Puerto Rico and the Virgin Islands share one zone.
WITH trip AS (
    SELECT flights.*,
        time_hour + to_minutes(minute + dep_delay) AS departed,
        coalesce(tzone, CASE WHEN dest IN ('SJU', 'BQN', 'STT', 'PSE') THEN 'America/Puerto_Rico' END) AS zone
    FROM flights LEFT JOIN airports ON dest = faa
    WHERE arr_delay IS NOT NULL
), clock AS (
    SELECT *, timezone(zone, departed) AS departed_there,
        date_trunc('day', timezone(zone, departed)) + to_minutes(arr_time // 100 * 60 + arr_time % 100) AS same_day
    FROM trip
)
SELECT
    concat_ws('-', carrier, flight, origin, strftime(time_hour + to_minutes(minute), '%Y%m%dT%H%M')) AS flight_id,
    timezone(zone, CASE WHEN same_day > departed_there THEN same_day ELSE same_day + INTERVAL 1 DAY END) AS landed,
    carrier, origin, dest, tailnum, arr_delay
FROM clock
